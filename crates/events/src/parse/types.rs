//! `TYPE` and `TYPE[COUNT]`.

use super::{number, token::Part};
use crate::{
    definition::{Base, Type, Width},
    error::{ErrorCode, SyntaxError},
};

/// The most elements of an array (`MAX_ARRAY_LEN`).
const MAX_COUNT: u8 = 64;

/// Reads the type of what `source` fetches; none means the default.
pub(super) fn parse(part: Option<Part<'_>>, source: Part<'_>) -> Result<Type, SyntaxError> {
    let is_text = matches!(source.raw, "$comm" | "$COMM") || source.raw.starts_with("\\\"");
    let Some(part) = part else {
        return Ok(if is_text { Type::STRING } else { Type::DEFAULT });
    };
    let (name, count) = match part.masked.find('[') {
        Some(open) => (part.split_at(open).0, Some(count(part.skip(open + 1))?)),
        None => (part, None),
    };
    if is_text && (count.is_some() || name.raw != "string") {
        return Err(part.error(ErrorCode::NeedStringType));
    }
    Ok(Type { base: base(name)?, count })
}

/// `COUNT]`.
fn count(part: Part<'_>) -> Result<u8, SyntaxError> {
    let Some(close) = part.masked.find(']') else {
        return Err(SyntaxError::new(ErrorCode::ArrayNoClose, part.end()));
    };
    let (count, suffix) = part.around(close);
    if !suffix.raw.is_empty() {
        return Err(suffix.error(ErrorCode::BadArraySuffix));
    }
    let number = number::unsigned(count.masked).and_then(|number| u32::try_from(number).ok()).filter(|n| *n > 0);
    let number = number.ok_or(count.error(ErrorCode::BadArrayNum))?;
    u8::try_from(number).ok().filter(|n| *n <= MAX_COUNT).ok_or(count.error(ErrorCode::ArrayTooBig))
}

fn base(part: Part<'_>) -> Result<Base, SyntaxError> {
    let unknown = part.error(ErrorCode::BadType);
    match part.raw {
        "string" => return Ok(Base::String),
        "ustring" => return Ok(Base::UserString),
        "symbol" => return Ok(Base::Symbol),
        "symstr" => return Ok(Base::SymbolString),
        "char" => return Ok(Base::Char),
        _ => {}
    }
    let width = |bits: &str| match bits {
        "8" => Some(Width::W8),
        "16" => Some(Width::W16),
        "32" => Some(Width::W32),
        "64" => Some(Width::W64),
        _ => None,
    };
    match part.raw.split_at_checked(1) {
        Some(("u", bits)) => width(bits).map(Base::Unsigned).ok_or(unknown),
        Some(("s", bits)) => width(bits).map(Base::Signed).ok_or(unknown),
        Some(("x", bits)) => width(bits).map(Base::Hex).ok_or(unknown),
        Some(("b", bits)) => bit_field(bits, part),
        _ => Err(unknown),
    }
}

/// `WIDTH@OFFSET/CONTAINER`. Without a container of a known size there is no type; all else is a bad bit field.
fn bit_field(text: &str, part: Part<'_>) -> Result<Base, SyntaxError> {
    let container = text.split_once('/').and_then(|(_, size)| number::unsigned(size)).and_then(Width::from_bits);
    let container = container.ok_or(part.error(ErrorCode::BadType))?;
    bits(text, container).ok_or(part.error(ErrorCode::BadBitfield))
}

fn bits(text: &str, container: Width) -> Option<Base> {
    let (width, rest) = number::leading(text)?;
    let (offset, rest) = number::leading(rest.strip_prefix('@')?)?;
    let fits = rest.starts_with('/') && width > 0 && width.checked_add(offset)? <= u64::from(container.bits());
    let (width, offset) = (u8::try_from(width).ok()?, u8::try_from(offset).ok()?);
    fits.then_some(Base::Bits { width, offset, container })
}
