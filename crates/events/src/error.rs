//! What can be wrong with a definition: Linux's error codes, and where in the line.
//!
//! Names and messages are those of `kernel/trace/trace_probe.h` (Linux 6.18), so that what people find about one holds for
//! the other. Hints on how to put it right are ours. Codes that only an engine can raise (a file that is not there, an
//! address between two instructions) are listed too: the caller reports them with [`SyntaxError::new`].

use alloc::{format, string::String};
use core::fmt;

macro_rules! codes {
    ($($variant:ident $name:literal $message:literal $hint:literal;)*) => {
        /// A reason to refuse a definition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = $message] $variant,)*
        }

        impl ErrorCode {
            /// All codes, in Linux's order; those of our own come last.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code's name in Linux's sources, such as `BAD_ARG_NAME`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Linux's message, as its `error_log` shows it.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message),* }
            }

            /// How to put it right.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint),* }
            }
        }
    };
}

codes! {
    FileNotFound "FILE_NOT_FOUND" "Failed to find the given file" "give the object's path as this process sees it";
    NoRegularFile "NO_REGULAR_FILE" "Not a regular file" "name an executable or a shared object";
    BadRefcnt "BAD_REFCNT" "Invalid reference counter offset" "write PATH:OFFSET(COUNTER_OFFSET), as in prog:0x1139(0x4010)";
    RefcntOpenBrace "REFCNT_OPEN_BRACE" "Reference counter brace is not closed" "close the offset with ')'";
    BadRefcntSuffix "BAD_REFCNT_SUFFIX" "Reference counter has wrong suffix" "%return stands before the brace: PATH:OFFSET%return(COUNTER_OFFSET)";
    BadUprobeOffs "BAD_UPROBE_OFFS" "Invalid uprobe offset" "an offset in the file is a number, as in /bin/true:0x1234";
    BadMaxactType "BAD_MAXACT_TYPE" "Maxactive is only for function exit" "write r, not p, before the number";
    BadMaxact "BAD_MAXACT" "Invalid maxactive number" "write a number from 1 to 4096 directly after r";
    MaxactTooBig "MAXACT_TOO_BIG" "Maxactive is too big" "the most is 4096";
    BadProbeAddr "BAD_PROBE_ADDR" "Invalid probed address or symbol" "write [OBJECT:]SYMBOL[+OFFSET] or 0xADDRESS; quote names with spaces, '+' or '-': \"operator new\"";
    NonUniqSymbol "NON_UNIQ_SYMBOL" "The symbol is not unique" "name the object (OBJECT:SYMBOL) or give the address";
    BadRetprobe "BAD_RETPROBE" "Retprobe address must be an function entry" "leave the offset out, or use p";
    BadAddrSuffix "BAD_ADDR_SUFFIX" "Invalid probed address suffix" "the only suffix is %return";
    NoGroupName "NO_GROUP_NAME" "Group name is not specified" "write GROUP/EVENT, or EVENT alone";
    GroupTooLong "GROUP_TOO_LONG" "Group name is too long" "the most is 63 bytes";
    BadGroupName "BAD_GROUP_NAME" "Group name must follow the same rules as C identifiers" "use letters, digits, '_' and '-', not a digit first";
    NoEventName "NO_EVENT_NAME" "Event name is not specified" "write a name after ':', or leave the ':' out";
    EventTooLong "EVENT_TOO_LONG" "Event name is too long" "the most is 63 bytes";
    BadEventName "BAD_EVENT_NAME" "Event name must follow the same rules as C identifiers" "use letters, digits and '_', not a digit first";
    EventExist "EVENT_EXIST" "Given group/event name is already used by another event" "choose another name, or remove the other with -:GROUP/EVENT";
    RetvalOnProbe "RETVAL_ON_PROBE" "$retval is not available on probe" "write r, not p, or add %return to the place";
    BadStackNum "BAD_STACK_NUM" "Invalid stack number" "the most is $stack2048; use +OFFSET($stack) beyond";
    BadArgNum "BAD_ARG_NUM" "Invalid argument number" "arguments are $arg1 to $arg255";
    BadVar "BAD_VAR" "Invalid $-variable specified" "there are $argN, $retval, $stack, $stackN and $comm";
    BadRegName "BAD_REG_NAME" "Invalid register name" "there are %ax %bx %cx %dx %si %di %bp %sp %r8 to %r15 %ip %flags, and %rax…; a type cuts them: %ax:u32";
    BadMemAddr "BAD_MEM_ADDR" "Invalid memory address" "write @0xADDRESS or @SYMBOL[+OFFSET]";
    BadImm "BAD_IMM" "Invalid immediate value" "write \\NUMBER or \\\"text\"";
    ImmstrNoClose "IMMSTR_NO_CLOSE" "String is not closed with '\"'" "end the text with '\"'; it cannot have spaces";
    FileOnKprobe "FILE_ON_KPROBE" "File offset is not available with kprobe" "@+OFFSET goes with PATH:OFFSET places; use @SYMBOL";
    BadFileOffs "BAD_FILE_OFFS" "Invalid file offset value" "write @+NUMBER";
    SymOnUprobe "SYM_ON_UPROBE" "Symbol is not available with uprobe" "give the place as OBJECT:SYMBOL, or use @+FILEOFFSET";
    TooManyOps "TOO_MANY_OPS" "Dereference is too much nested" "nest at most 12 deep";
    DerefNeedBrace "DEREF_NEED_BRACE" "Dereference needs a brace" "write +OFFSET(FETCH), as in +8(%di)";
    BadDerefOffs "BAD_DEREF_OFFS" "Invalid dereference offset" "the offset is a number, as in +0x10(%di)";
    DerefOpenBrace "DEREF_OPEN_BRACE" "Dereference brace is not closed" "close it with ')'";
    CommCantDeref "COMM_CANT_DEREF" "$comm can not be dereferenced" "$comm and \\\"text\" stand alone";
    BadFetchArg "BAD_FETCH_ARG" "Invalid fetch argument" "begin with % $ @ + - or \\";
    ArrayNoClose "ARRAY_NO_CLOSE" "Array is not closed" "close it with ']'";
    BadArraySuffix "BAD_ARRAY_SUFFIX" "Array has wrong suffix" "nothing may follow ']'";
    BadArrayNum "BAD_ARRAY_NUM" "Invalid array size" "write a number from 1 to 64";
    ArrayTooBig "ARRAY_TOO_BIG" "Array number is too big" "the most is 64";
    BadType "BAD_TYPE" "Unknown type is specified" "types are u8…u64 s8…s64 x8…x64 char string ustring symbol symstr bWIDTH@OFFSET/CONTAINER";
    BadString "BAD_STRING" "String accepts only memory argument" "strings and arrays are read from memory: +0(%di):string";
    BadSymstring "BAD_SYMSTRING" "Symbol String doesn't accept data/userdata" "symstr takes a register, $argN, $retval, $stackN or memory";
    BadBitfield "BAD_BITFIELD" "Invalid bitfield" "write bWIDTH@OFFSET/CONTAINER with WIDTH + OFFSET at most CONTAINER, as in b4@0/8";
    ArgNameTooLong "ARG_NAME_TOO_LONG" "Argument name is too long" "the most is 32 bytes";
    NoArgName "NO_ARG_NAME" "Argument name is not specified" "write NAME=FETCH, or FETCH alone";
    BadArgName "BAD_ARG_NAME" "Argument name must follow the same rules as C identifiers" "use letters, digits and '_', not a digit first";
    UsedArgName "USED_ARG_NAME" "This argument name is already used" "choose another name";
    ArgTooLong "ARG_TOO_LONG" "Argument expression is too long" "the most is 63 bytes";
    NoArgBody "NO_ARG_BODY" "No argument expression" "write what to fetch after '='";
    BadInsnBndry "BAD_INSN_BNDRY" "Probe point is not an instruction boundary" "probe the first byte of an instruction";
    FailRegProbe "FAIL_REG_PROBE" "Failed to register probe event" "";
    DiffProbeType "DIFF_PROBE_TYPE" "Probe type is different from existing probe" "probes of one event are all p or all r";
    DiffArgType "DIFF_ARG_TYPE" "Argument type or name is different from existing probe" "probes of one event have the same arguments";
    SameProbe "SAME_PROBE" "There is already the exact same probe event" "remove it with -:GROUP/EVENT first";
    NosupBtfarg "NOSUP_BTFARG" "BTF is not available or not supported" "name registers or $argN, not variables";
    BadVarArgs "BAD_VAR_ARGS" "$arg* must be an independent parameter without name etc." "write $arg1, $arg2 …";
    NofentryArgs "NOFENTRY_ARGS" "$arg* can be used only on function entry or exit" "probe SYMBOL without an offset; elsewhere name the register";
    DoubleArgs "DOUBLE_ARGS" "$arg* can be used only once in the parameters" "write $arg1, $arg2 …";
    NeedStringType "NEED_STRING_TYPE" "$comm and immediate-string only accepts string type" "leave the type out";
    TooManyArgs "TOO_MANY_ARGS" "Too many arguments are specified" "the most is 128";
    EventTooBig "EVENT_TOO_BIG" "Event too big (too many fields?)" "a record's fields have at most 3072 bytes";
    BadCommand "BAD_COMMAND" "Definition must begin with 'p', 'r' or '-:'" "write p[:[GROUP/]EVENT] PLACE [ARGS], r… or -:[GROUP/]EVENT";
    NoPlace "NO_PLACE" "Probed address or symbol is not specified" "write what to probe: [OBJECT:]SYMBOL[+OFFSET], 0xADDRESS or PATH:OFFSET";
    QuoteNoClose "QUOTE_NO_CLOSE" "Quoted name is not closed with '\"'" "end the name with '\"'";
}

/// What is wrong with a line, and where.
///
/// ```
/// let line = "p:open do_open flags=%edx";
/// let error = events::parse(line).unwrap_err();
/// assert_eq!((error.code.name(), error.column), ("BAD_REG_NAME", 21));
/// assert_eq!(error.code.message(), "Invalid register name");
/// let rendered = [
///     "error: Invalid register name",
///     "  p:open do_open flags=%edx",
///     "                       ^",
///     &format!("hint: {}", error.code.hint()),
/// ];
/// assert_eq!(error.render(line), rendered.join("\n"));
/// ```
///
/// A host that does not find what a line names says so in the same way:
///
/// ```
/// use events::{ErrorCode, SyntaxError};
///
/// let error = SyntaxError::new(ErrorCode::BadProbeAddr, 7).with_detail("no symbol do_open");
/// assert_eq!(error.to_string(), "Invalid probed address or symbol: no symbol do_open");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// What is wrong.
    pub code: ErrorCode,
    /// Byte offset in the line of what is wrong; the line's length if something is missing at its end.
    pub column: usize,
    /// The name or value at fault, where the column alone does not tell.
    pub detail: Option<String>,
}

impl SyntaxError {
    /// `code` at byte `column`.
    #[must_use]
    pub const fn new(code: ErrorCode, column: usize) -> Self {
        Self { code, column, detail: None }
    }

    /// The same with more to say, such as the symbol that was not found.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The message with `line` below it, a caret under the column and a hint how to put it right.
    #[must_use]
    pub fn render(&self, line: &str) -> String {
        let before = line.char_indices().take_while(|(at, _)| *at < self.column);
        // A tab stays a tab, so the caret lands right whatever its width.
        let indent: String = before.map(|(_, c)| if c == '\t' { '\t' } else { ' ' }).collect();
        let mut text = format!("error: {self}\n  {line}\n  {indent}^");
        if !self.code.hint().is_empty() {
            text.push_str("\nhint: ");
            text.push_str(self.code.hint());
        }
        text
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.message())?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for SyntaxError {}
