//! Definitions to programs.

use alloc::{string::String, vec::Vec};

use super::{
    ARGUMENT, DEREF, IMMEDIATE, REGISTER, RETURN_VALUE, STORE_COMM, STORE_MEMORY, STORE_NUMBER, STORE_STRING,
    STORE_STRINGS, STORE_TEXT,
};
use crate::{
    definition::{Arg, Base, Definition, Fetch, Kind, Type},
    error::{ErrorCode, SyntaxError},
    record::STRING_HEADER,
};

/// Register number of the stack pointer.
const SP: u8 = 4;

/// Finds what definitions name in the target.
pub trait Resolve {
    /// The address of a symbol; `object_hint` is the object that the probe's place names, where it should be sought first.
    fn symbol(&self, object_hint: Option<&str>, name: &str) -> Option<u64>;

    /// The address at which an offset of the probed file is mapped.
    fn file_offset(&self, offset: u64) -> Option<u64>;
}

/// What records a probe's arguments, and what reads the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Operations for [`run`](crate::run()), to be copied to where the probe is hit.
    pub code: Vec<u8>,
    /// What the record holds.
    pub schema: Schema,
    /// Arguments that a return probe records: whoever runs it must keep them at entry and give them by
    /// [`Source::argument`](crate::Source::argument). Sorted, each once.
    pub entry_arguments: Vec<u8>,
}

/// What a record holds, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// Its arguments.
    pub fields: Vec<Field>,
}

/// One argument of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// Compiles the arguments of a definition for one target.
///
/// # Errors
///
/// `BAD_MEM_ADDR` for a symbol that the target does not have, `BAD_FILE_OFFS` for an offset that is not mapped, and for a
/// definition that was not parsed but put together, what [`parse`](fn@crate::parse) would have refused.
///
/// ```
/// use events::{Resolve, compile, parse};
///
/// struct Target;
/// impl Resolve for Target {
///     fn symbol(&self, _object: Option<&str>, name: &str) -> Option<u64> { (name == "LIMIT").then_some(0x404010) }
///     fn file_offset(&self, _offset: u64) -> Option<u64> { None }
/// }
///
/// let program = compile(&parse("r f @LIMIT:u32 $arg2 $retval")?, &Target)?;
/// assert_eq!(program.schema.fields[0].name, "arg1");
/// // Gone when the function returns, so whoever runs the program must keep it.
/// assert_eq!(program.entry_arguments, [2]);
///
/// let error = compile(&parse("p f @LIMITS:u32")?, &Target).unwrap_err();
/// assert_eq!(error.to_string(), "Invalid memory address: no symbol LIMITS in the target");
/// # Ok::<(), events::SyntaxError>(())
/// ```
pub fn compile(definition: &Definition, target: &impl Resolve) -> Result<Program, SyntaxError> {
    let mut code = Vec::new();
    for (index, arg) in definition.args.iter().enumerate() {
        let later = definition.args.iter().skip(index + 1).map(least_size).sum::<usize>();
        let mut compiler = Compiler { code: &mut code, definition, target, arg };
        compiler.argument(u16::try_from(later).unwrap_or(u16::MAX))?;
    }
    let fields = definition.args.iter().map(|arg| Field { name: arg.name.clone(), ty: arg.ty }).collect();
    Ok(Program { code, schema: Schema { fields }, entry_arguments: entry_arguments(definition) })
}

/// Bytes that an argument needs in a record if its strings are empty.
fn least_size(arg: &Arg) -> usize {
    let count = usize::from(arg.ty.count.unwrap_or(1));
    match (&arg.fetch, arg.ty.base.width()) {
        (Fetch::Comm, _) => STRING_HEADER + 16,
        (Fetch::Text(text), _) => STRING_HEADER + text.len(),
        (_, Some(width)) => 1 + usize::from(width.bytes()) * count,
        (_, None) if arg.ty.count.is_some() => 1 + STRING_HEADER * count,
        (_, None) => STRING_HEADER,
    }
}

fn entry_arguments(definition: &Definition) -> Vec<u8> {
    if !matches!(definition.kind, Kind::Return { .. }) {
        return Vec::new();
    }
    let mut arguments: Vec<u8> = definition.args.iter().filter_map(|arg| argument_in(&arg.fetch)).collect();
    arguments.sort_unstable();
    arguments.dedup();
    arguments
}

fn argument_in(fetch: &Fetch) -> Option<u8> {
    match fetch {
        Fetch::Argument(n) => Some(*n),
        Fetch::Deref { inner, .. } => argument_in(inner),
        _ => None,
    }
}

struct Compiler<'a, R> {
    code: &'a mut Vec<u8>,
    definition: &'a Definition,
    target: &'a R,
    arg: &'a Arg,
}

impl<R: Resolve> Compiler<'_, R> {
    fn argument(&mut self, reserve: u16) -> Result<(), SyntaxError> {
        let Arg { fetch, ty, .. } = self.arg;
        match (fetch, ty.base) {
            (Fetch::Comm, _) => self.code.push(STORE_COMM),
            (Fetch::Text(text), _) => self.text(text)?,
            (_, Base::String | Base::UserString) => self.string(fetch, ty.count, reserve)?,
            (_, base) if fetch.is_memory() => self.memory(fetch, base, ty.count)?,
            (_, base) => self.number(fetch, base)?,
        }
        Ok(())
    }

    fn error(&self, code: ErrorCode) -> SyntaxError {
        SyntaxError::new(code, self.arg.column.0)
    }

    fn op(&mut self, op: u8, operand: u64) {
        self.code.push(op);
        self.code.extend_from_slice(&operand.to_le_bytes());
    }

    fn text(&mut self, text: &str) -> Result<(), SyntaxError> {
        let len = u8::try_from(text.len()).map_err(|_| self.error(ErrorCode::ArgTooLong))?;
        self.code.extend_from_slice(&[STORE_TEXT, len]);
        self.code.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn string(&mut self, fetch: &Fetch, count: Option<u8>, reserve: u16) -> Result<(), SyntaxError> {
        let offset = match fetch {
            Fetch::Immediate(_) if count.is_none() => {
                self.value(fetch)?;
                0
            }
            _ if fetch.is_memory() => self.address(fetch)?,
            _ => return Err(self.error(ErrorCode::BadString)),
        };
        self.op(if count.is_some() { STORE_STRINGS } else { STORE_STRING }, offset.cast_unsigned());
        self.code.extend_from_slice(&reserve.to_le_bytes());
        self.code.extend(count);
        Ok(())
    }

    fn memory(&mut self, fetch: &Fetch, base: Base, count: Option<u8>) -> Result<(), SyntaxError> {
        let cut = self.cut(base)?;
        let offset = self.address(fetch)?;
        self.code.push(STORE_MEMORY);
        self.code.extend_from_slice(&cut);
        self.code.push(count.unwrap_or(0));
        self.code.extend_from_slice(&offset.to_le_bytes());
        Ok(())
    }

    fn number(&mut self, fetch: &Fetch, base: Base) -> Result<(), SyntaxError> {
        if self.arg.ty.count.is_some() {
            return Err(self.error(ErrorCode::BadString));
        }
        let cut = self.cut(base)?;
        self.value(fetch)?;
        self.code.push(STORE_NUMBER);
        self.code.extend_from_slice(&cut);
        Ok(())
    }

    /// Size and shifts of a number.
    fn cut(&self, base: Base) -> Result<[u8; 3], SyntaxError> {
        let width = base.width().ok_or(self.error(ErrorCode::BadString))?;
        let Base::Bits { width: bits, offset, .. } = base else {
            return Ok([width.bytes(), 0, 0]);
        };
        let left = width.bits().checked_sub(bits).and_then(|above| above.checked_sub(offset));
        match left {
            Some(left) if bits > 0 => Ok([width.bytes(), left, width.bits() - bits]),
            _ => Err(self.error(ErrorCode::BadBitfield)),
        }
    }

    /// Emits what computes a value.
    fn value(&mut self, fetch: &Fetch) -> Result<(), SyntaxError> {
        match fetch {
            Fetch::Register(register) => self.code.extend_from_slice(&[REGISTER, register.index()]),
            Fetch::Argument(n) => self.code.extend_from_slice(&[ARGUMENT, *n]),
            Fetch::ReturnValue => self.code.push(RETURN_VALUE),
            Fetch::StackPointer => self.code.extend_from_slice(&[REGISTER, SP]),
            Fetch::Stack(n) => {
                self.code.extend_from_slice(&[REGISTER, SP]);
                self.op(DEREF, u64::from(*n) * 8);
            }
            Fetch::Immediate(value) => self.op(IMMEDIATE, *value),
            Fetch::Comm | Fetch::Text(_) => return Err(self.error(ErrorCode::CommCantDeref)),
            Fetch::Memory(_) | Fetch::Symbol { .. } | Fetch::FileOffset(_) | Fetch::Deref { .. } => {
                let offset = self.address(fetch)?;
                self.op(DEREF, offset.cast_unsigned());
            }
        }
        Ok(())
    }

    /// Emits what computes the address that `fetch` reads from, less the offset that it gives back.
    fn address(&mut self, fetch: &Fetch) -> Result<i64, SyntaxError> {
        let addr = match fetch {
            Fetch::Deref { offset, inner, .. } => {
                self.value(inner)?;
                return Ok(*offset);
            }
            Fetch::Memory(addr) => *addr,
            Fetch::Symbol { name, offset } => self.symbol(name)?.wrapping_add_signed(*offset),
            Fetch::FileOffset(offset) => self.file_offset(*offset)?,
            _ => return Err(self.error(ErrorCode::BadString)),
        };
        self.op(IMMEDIATE, addr);
        Ok(0)
    }

    fn symbol(&self, name: &str) -> Result<u64, SyntaxError> {
        let addr = self.target.symbol(self.definition.object(), name);
        addr.ok_or_else(|| {
            self.error(ErrorCode::BadMemAddr).with_detail(alloc::format!("no symbol {name} in the target"))
        })
    }

    fn file_offset(&self, offset: i64) -> Result<u64, SyntaxError> {
        let addr = u64::try_from(offset).ok().and_then(|offset| self.target.file_offset(offset));
        addr.ok_or_else(|| self.error(ErrorCode::BadFileOffs).with_detail("the offset is not mapped"))
    }
}
