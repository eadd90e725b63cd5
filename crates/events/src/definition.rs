//! What a definition line says, as data. `Display` prints the canonical line, and parsing that gives the same definition.

use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::fmt;

/// One line: what to probe, under which name, and what to record there.
///
/// ```
/// let definition = events::parse("p libc.so.6:malloc+0x10 %rdi:u64")?;
/// assert_eq!(definition.object(), Some("libc.so.6"));
/// // The line gives no name, so it gets Linux's.
/// assert_eq!(definition.group_name(), "kprobes");
/// assert_eq!(definition.event_name(), "p_malloc_16");
/// assert_eq!(definition.to_string(), "p libc.so.6:malloc+0x10 arg1=%di:u64");
/// # Ok::<(), events::SyntaxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Probe, return probe or removal.
    pub kind: Kind,
    /// The event's group, if given; see [`Definition::group_name`].
    pub group: Option<String>,
    /// The event's name, if given; see [`Definition::event_name`].
    pub event: Option<String>,
    /// Where the probe goes.
    pub place: Place,
    /// File offset of a counter that is incremented while the probe is there (a `systemtap` semaphore): `PATH:OFFSET(REFERENCE)`.
    pub reference: Option<u64>,
    /// What to record, in order.
    pub args: Vec<Arg>,
    /// Where the place is in the line.
    pub place_column: Column,
}

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `p`: a probe on an instruction.
    Entry,
    /// `r`, or `%return` behind the place: a probe on a function's return.
    Return {
        /// How many activations can be followed at once (`r10`), if given.
        maxactive: Option<u32>,
    },
    /// `-:[GRP/][EVENT]`: removes what was defined before.
    Remove,
}

/// Where a probe goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `[OBJECT:]SYMBOL[+OFFSET]`.
    Symbol {
        /// Path, soname or base name of the loaded object that has the symbol.
        object: Option<String>,
        /// The symbol's name, mangled or not.
        symbol: String,
        /// Bytes from the symbol.
        offset: u64,
    },
    /// `PATH:OFFSET`, as `uprobe_events` has it. The path has a `/` in it.
    FileOffset {
        /// The object's file.
        path: String,
        /// Offset in the file, not an address.
        offset: u64,
    },
    /// `[OBJECT:]0xADDRESS`.
    Address {
        /// Base name or soname of the object whose addresses are meant; it has no `/` in it.
        object: Option<String>,
        /// The address: absolute, or as in the object's symbol table.
        addr: u64,
    },
    /// `[OBJECT:]SYMBOL` with `*`, `?` or `[…]` in it, not in quotes: every function that matches.
    Pattern {
        /// Which objects: a glob for a path, a soname or a base name. `\\` takes the next character as it is.
        object: Option<String>,
        /// Which functions: a glob.
        name: String,
    },
    /// Wherever the named event is: a removal that names no place.
    Anywhere,
}

/// A byte offset in the line a definition was parsed from.
///
/// It is for error messages and no part of what the line means: all columns compare equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Column(pub usize);

impl PartialEq for Column {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Column {}

/// One recorded value: `[NAME=]FETCH[:TYPE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name; `arg1`, `arg2`, … by position if the line gives none.
    pub name: String,
    /// Where it comes from.
    pub fetch: Fetch,
    /// How it is stored and printed.
    pub ty: Type,
    /// Where the fetch expression is in the line.
    pub column: Column,
}

/// Where a value comes from.
///
/// ```
/// use events::{Fetch, parse};
///
/// let fetch = |argument| parse(&format!("p f {argument}")).map(|definition| definition.args[0].fetch.clone());
/// assert_eq!(fetch("$arg1")?, Fetch::Argument(1));
/// // What lies in memory can be a string or an array; a register cannot.
/// assert!(fetch("+8(%di)")?.is_memory() && !fetch("%di")?.is_memory());
/// assert!(fetch("$comm")?.is_text() && fetch(r#"\"start""#)?.is_text());
/// # Ok::<(), events::SyntaxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// `%REG`.
    Register(Register),
    /// `$argN`: the function's Nth argument by the calling convention, from 1; in a return probe its value at entry.
    Argument(u8),
    /// `$retval`.
    ReturnValue,
    /// `$stack`: the stack pointer.
    StackPointer,
    /// `$stackN`: the Nth word on the stack, from 0.
    Stack(u32),
    /// `$comm`: the thread's name.
    Comm,
    /// `@ADDR`: memory at an address.
    Memory(u64),
    /// `@SYM[+|-OFF]`: memory at a symbol.
    Symbol {
        /// The symbol's name.
        name: String,
        /// Bytes from it.
        offset: i64,
    },
    /// `@+OFF`: memory at an offset of the probed file.
    FileOffset(i64),
    /// `+|-[u]OFF(FETCH)`: memory at an offset from a value.
    Deref {
        /// Written with `u`: user memory. In a process there is no other.
        user: bool,
        /// Bytes from the value.
        offset: i64,
        /// The value that points there.
        inner: Box<Self>,
    },
    /// `\NUMBER`.
    Immediate(u64),
    /// `\"text"`.
    Text(String),
}

impl Fetch {
    /// Whether the value is read from memory, so that strings and arrays can be.
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        matches!(self, Self::Memory(_) | Self::Symbol { .. } | Self::FileOffset(_) | Self::Deref { .. })
    }

    /// Whether the value is text that is not in the probed program's memory.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        matches!(self, Self::Comm | Self::Text(_))
    }
}

/// A register, by its number in the hardware's encoding: 0 to 15 are rax rcx rdx rbx rsp rbp rsi rdi r8…r15, 16 is the
/// instruction pointer, 17 the flags.
///
/// ```
/// use events::Register;
///
/// let register = Register::from_name("rdi").ok_or("no such register")?;
/// assert_eq!((register.index(), register.name()), (7, "di"));
/// assert_eq!(Register::from_name("di"), Some(register));
/// assert_eq!(Register::from_name("edi"), None);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u8);

/// By number: the kernel's name (`struct pt_regs`), the full one.
const REGISTERS: [(&str, &str); 18] = [
    ("ax", "rax"),
    ("cx", "rcx"),
    ("dx", "rdx"),
    ("bx", "rbx"),
    ("sp", "rsp"),
    ("bp", "rbp"),
    ("si", "rsi"),
    ("di", "rdi"),
    ("r8", "r8"),
    ("r9", "r9"),
    ("r10", "r10"),
    ("r11", "r11"),
    ("r12", "r12"),
    ("r13", "r13"),
    ("r14", "r14"),
    ("r15", "r15"),
    ("ip", "rip"),
    ("flags", "rflags"),
];

impl Register {
    /// The register of that name, such as `di` or `rdi`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let index = REGISTERS.iter().position(|(kernel, full)| *kernel == name || *full == name)?;
        u8::try_from(index).ok().map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn index(self) -> u8 {
        self.0
    }

    /// Its name in `struct pt_regs`.
    #[must_use]
    pub fn name(self) -> &'static str {
        REGISTERS.get(usize::from(self.0)).map_or("?", |(kernel, _)| kernel)
    }
}

/// How a value is stored and printed.
///
/// ```
/// use events::{Base, Fetch, Type, Width, parse};
///
/// let definition = parse("p f +0(%di):u16[4]")?;
/// assert_eq!(definition.args[0].ty, Type { base: Base::Unsigned(Width::W16), count: Some(4) });
/// assert_eq!(Type::default_for(&Fetch::Argument(1)).to_string(), "x64");
/// assert_eq!(Type::default_for(&Fetch::Comm), Type::STRING);
/// # Ok::<(), events::SyntaxError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    /// The type, or that of each element.
    pub base: Base,
    /// `TYPE[COUNT]`: an array.
    pub count: Option<u8>,
}

/// A type without its array size.
///
/// ```
/// use events::{Base, Width};
///
/// assert!(Base::UserString.is_string() && !Base::SymbolString.is_string());
/// assert_eq!(Base::String.width(), None);
/// // Three bits of a 16-bit number: the whole number is fetched.
/// let bits = Base::Bits { width: 3, offset: 4, container: Width::W16 };
/// assert_eq!(bits.width(), Some(Width::W16));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// `u8` to `u64`: decimal.
    Unsigned(Width),
    /// `s8` to `s64`: decimal with a sign.
    Signed(Width),
    /// `x8` to `x64`: hexadecimal.
    Hex(Width),
    /// `char`: one byte, printed as a character.
    Char,
    /// `string`: bytes up to a NUL.
    String,
    /// `ustring`: the same from user memory.
    UserString,
    /// `symbol`: an address, printed as a symbol.
    Symbol,
    /// `symstr`: the same, as a string.
    SymbolString,
    /// `bWIDTH@OFFSET/CONTAINER`: some bits of an unsigned number.
    Bits {
        /// How many bits.
        width: u8,
        /// How many bits are below them.
        offset: u8,
        /// The number they are in.
        container: Width,
    },
}

/// How many bytes a number has.
///
/// ```
/// use events::Width;
///
/// assert_eq!(Width::from_bits(32), Some(Width::W32));
/// assert_eq!(Width::from_bits(24), None);
/// assert_eq!((Width::W32.bytes(), Width::W32.bits()), (4, 32));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    W8,
    /// Two bytes.
    W16,
    /// Four bytes.
    W32,
    /// Eight bytes.
    W64,
}

impl Width {
    /// The width of so many bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits {
            8 => Some(Self::W8),
            16 => Some(Self::W16),
            32 => Some(Self::W32),
            64 => Some(Self::W64),
            _ => None,
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        match self {
            Self::W8 => 1,
            Self::W16 => 2,
            Self::W32 => 4,
            Self::W64 => 8,
        }
    }

    /// In bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bytes() * 8
    }
}

impl Type {
    /// What a value is whose type is not given: `x64`.
    pub const DEFAULT: Self = Self { base: Base::Hex(Width::W64), count: None };
    /// `string`.
    pub const STRING: Self = Self { base: Base::String, count: None };

    /// What `fetch` is if its type is not given.
    #[must_use]
    pub const fn default_for(fetch: &Fetch) -> Self {
        if fetch.is_text() { Self::STRING } else { Self::DEFAULT }
    }
}

impl Base {
    /// Whether it is `string` or `ustring`.
    #[must_use]
    pub const fn is_string(self) -> bool {
        matches!(self, Self::String | Self::UserString)
    }

    /// How wide the number is that is fetched; nothing for strings.
    #[must_use]
    pub const fn width(self) -> Option<Width> {
        match self {
            Self::Unsigned(width) | Self::Signed(width) | Self::Hex(width) => Some(width),
            Self::Bits { container, .. } => Some(container),
            Self::Char => Some(Width::W8),
            Self::Symbol | Self::SymbolString => Some(Width::W64),
            Self::String | Self::UserString => None,
        }
    }
}

/// The longest group or event name, in bytes (`MAX_EVENT_NAME_LEN` less its NUL).
pub(crate) const MAX_EVENT_NAME: usize = 63;

impl Definition {
    /// The event's name: as given, or Linux's default: `p_SYMBOL_OFFSET` (`r_…` for a return probe), `p_0xADDRESS`, or
    /// `p_FILE_0xOFFSET` where FILE is the base name up to its first `.`, `-` or `_`.
    ///
    /// What C identifiers cannot have becomes `_`; 63 bytes are kept.
    #[must_use]
    pub fn event_name(&self) -> String {
        if let Some(event) = &self.event {
            return event.clone();
        }
        let letter = if matches!(self.kind, Kind::Return { .. }) { 'r' } else { 'p' };
        let name = match &self.place {
            Place::Symbol { symbol, offset, .. } => format!("{letter}_{symbol}_{offset}"),
            Place::Address { addr, .. } => format!("{letter}_{addr:#x}"),
            Place::FileOffset { path, offset } => format!("p_{}_{offset:#x}", file_stem(path)),
            Place::Pattern { name, .. } => format!("{letter}_{name}"),
            Place::Anywhere => String::new(),
        };
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(MAX_EVENT_NAME).collect()
    }

    /// The event's group: as given, or `uprobes` for `PATH:OFFSET` places and `kprobes` for all others.
    #[must_use]
    pub fn group_name(&self) -> String {
        let default = if matches!(self.place, Place::FileOffset { .. }) { "uprobes" } else { "kprobes" };
        self.group.as_deref().unwrap_or(default).into()
    }

    /// The object that the place names, if it does.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        match &self.place {
            Place::Symbol { object, .. } | Place::Address { object, .. } | Place::Pattern { object, .. } => {
                object.as_deref()
            }
            Place::FileOffset { path, .. } => Some(path),
            Place::Anywhere => None,
        }
    }
}

fn file_stem(path: &str) -> &str {
    let base = path.rsplit('/').next().unwrap_or(path);
    base.split(['.', '-', '_']).next().unwrap_or(base)
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Entry => f.write_str("p")?,
            Kind::Return { maxactive: None } => f.write_str("r")?,
            Kind::Return { maxactive: Some(maxactive) } => write!(f, "r{maxactive}")?,
            Kind::Remove => f.write_str("-")?,
        }
        match (&self.group, &self.event) {
            (Some(group), event) => write!(f, ":{group}/{}", event.as_deref().unwrap_or(""))?,
            (None, Some(event)) => write!(f, ":{event}")?,
            (None, None) => {}
        }
        if self.place != Place::Anywhere {
            write!(f, " {}", self.place)?;
        }
        if let Some(reference) = self.reference {
            write!(f, "({reference:#x})")?;
        }
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Symbol { object: Some(object), .. } | Self::Address { object: Some(object), .. } = self {
            // An address is an address, whatever stands before it.
            quoted_if(f, object, &[':'], matches!(self, Self::Symbol { .. }) && is_live(object))?;
            f.write_str(":")?;
        }
        match self {
            Self::Symbol { symbol, offset, .. } => {
                quoted_if(f, symbol, &[':', '+', '-', '%'], is_live(symbol))?;
                if *offset == 0 { Ok(()) } else { write!(f, "+{offset:#x}") }
            }
            Self::Address { addr, .. } => write!(f, "{addr:#x}"),
            Self::FileOffset { path, offset } => {
                quoted(f, path, &[])?;
                write!(f, ":{offset:#x}")
            }
            Self::Pattern { object, name } => {
                if let Some(object) = object {
                    glob(f, object, &[':'])?;
                    f.write_str(":")?;
                }
                glob(f, name, &[':', '+', '-', '%'])
            }
            Self::Anywhere => Ok(()),
        }
    }
}

/// Writes a part of a pattern: as it is, or, where it stands for one name, as that name.
fn glob(f: &mut fmt::Formatter<'_>, glob: &str, special: &[char]) -> fmt::Result {
    if is_live(glob) {
        return f.write_str(glob);
    }
    let mut name = String::new();
    let mut characters = glob.chars();
    while let Some(character) = characters.next() {
        name.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    quoted_if(f, &name, special, is_live(&name))
}

/// Whether a glob can match more than one name: it has a `*`, a `?` or a `[…]` that is not escaped.
///
/// Names have such characters too: `main.(*T).Run` is a function of Go, `operator*` one of C++. These alone make no
/// pattern.
pub(crate) fn is_live(glob: &str) -> bool {
    let mut is_escaped = false;
    glob.char_indices().any(|(at, c)| {
        let (before, rest) = glob.split_at_checked(at).unwrap_or((glob, ""));
        let is_of_a_name = before.ends_with("operator") || c == '*' && before.ends_with('(');
        let is_open = c == '[' && !rest.chars().skip(2).any(|c| c == ']');
        let special = !is_escaped && GLOB.contains(&c) && !is_of_a_name && !is_open;
        is_escaped = c == '\\' && !is_escaped;
        special
    })
}

/// What begins something other than itself in a glob.
pub(crate) const GLOB: [char; 3] = ['*', '?', '['];

/// Whether a name has one of `special` in it, or what separates and begins things anywhere.
fn needs_quotes(name: &str, special: &[char]) -> bool {
    let needs = |c: char| c.is_ascii_whitespace() || c == '\u{b}' || matches!(c, '"' | '#') || special.contains(&c);
    name.contains(needs) || name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty()
}

/// Writes a name, in quotes if it has one of `special` in it, or what separates and begins things anywhere.
fn quoted(f: &mut fmt::Formatter<'_>, name: &str, special: &[char]) -> fmt::Result {
    quoted_if(f, name, special, false)
}

/// As [`quoted`], and in any case if there is `need`.
fn quoted_if(f: &mut fmt::Formatter<'_>, name: &str, special: &[char], need: bool) -> fmt::Result {
    if !need && !needs_quotes(name, special) {
        return f.write_str(name);
    }
    f.write_str("\"")?;
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    f.write_str("\"")
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.fetch)?;
        if self.ty == Type::default_for(&self.fetch) { Ok(()) } else { write!(f, ":{}", self.ty) }
    }
}

impl fmt::Display for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(register) => write!(f, "%{}", register.name()),
            Self::Argument(n) => write!(f, "$arg{n}"),
            Self::ReturnValue => f.write_str("$retval"),
            Self::StackPointer => f.write_str("$stack"),
            Self::Stack(n) => write!(f, "$stack{n}"),
            Self::Comm => f.write_str("$comm"),
            Self::Memory(addr) => write!(f, "@{}", shortest(*addr)),
            Self::Symbol { name, offset } => {
                f.write_str("@")?;
                quoted(f, name, &[':', '+', '-', '=', '(', ')'])?;
                match *offset {
                    0 => Ok(()),
                    1.. => write!(f, "+{}", shortest(offset.unsigned_abs())),
                    _ => write!(f, "-{}", shortest(offset.unsigned_abs())),
                }
            }
            Self::FileOffset(offset) => write!(f, "@+{}{}", minus(*offset), shortest(offset.unsigned_abs())),
            Self::Deref { user, offset, inner } => {
                let sign = if *offset < 0 { '-' } else { '+' };
                write!(f, "{sign}{}{}({inner})", if *user { "u" } else { "" }, shortest(offset.unsigned_abs()))
            }
            Self::Immediate(value) => {
                let negative = format!("-{}", shortest(value.wrapping_neg()));
                let positive = shortest(*value);
                let is_shorter = value.cast_signed() < 0 && negative.len() < positive.len();
                write!(f, "\\{}", if is_shorter { negative } else { positive })
            }
            Self::Text(text) => write!(f, "\\\"{text}\""),
        }
    }
}

fn minus(value: i64) -> &'static str {
    if value < 0 { "-" } else { "" }
}

/// Decimal or hexadecimal, whichever is shorter: so a canonical argument is never longer than the one it was parsed from,
/// and keeps within the limit.
fn shortest(value: u64) -> String {
    let (decimal, hex) = (format!("{value}"), format!("{value:#x}"));
    if hex.len() < decimal.len() { hex } else { decimal }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base {
            Base::Unsigned(width) => write!(f, "u{}", width.bits())?,
            Base::Signed(width) => write!(f, "s{}", width.bits())?,
            Base::Hex(width) => write!(f, "x{}", width.bits())?,
            Base::Char => f.write_str("char")?,
            Base::String => f.write_str("string")?,
            Base::UserString => f.write_str("ustring")?,
            Base::Symbol => f.write_str("symbol")?,
            Base::SymbolString => f.write_str("symstr")?,
            Base::Bits { width, offset, container } => write!(f, "b{width}@{offset}/{}", container.bits())?,
        }
        self.count.map_or(Ok(()), |count| write!(f, "[{count}]"))
    }
}
