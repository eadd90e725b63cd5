//! Where a place of a definition is, and what is at an address.

use crate::Kernel;
use alloc::format;
use alloc::string::String;
#[cfg(not(feature = "symbols"))]
use alloc::string::ToString;
use events::Place;

/// Name, offset and size of what is at `address`.
pub(crate) fn located<K: Kernel>(address: u64) -> Option<(String, u64, u64)> {
    K::symbol_at(address).map(|s| (s.name, address - s.address, s.size))
}

pub(crate) fn symbolize<K: Kernel>(address: u64) -> Option<String> {
    located::<K>(address).map(|(name, offset, size)| format!("{name}+{offset:#x}/{size:#x}"))
}

/// Where a place is.
pub(crate) fn resolve<K: Kernel>(place: &Place) -> Result<u64, String> {
    match place {
        Place::Symbol { object: None, symbol, offset } => function_at::<K>(symbol, *offset),
        Place::Symbol { object: Some(module), symbol, offset } => {
            function_at::<K>(&format!("{module}:{symbol}"), *offset)
                .map_err(|why| format!("no module `{module}` with a function `{symbol}`: {why}"))
        }
        Place::Address { object: None, addr } => Ok(*addr),
        Place::Address { object: Some(object), .. } => {
            Err(format!("no module `{object}` has addresses of its own: an address is one of the whole kernel"))
        }
        Place::FileOffset { .. } => Err("a kernel is no file: name a symbol or an address".into()),
        Place::Pattern { .. } => Err("a pattern is for processes: name one function".into()),
        Place::Anywhere => Err("a line that removes a probe has no place".into()),
    }
}

/// Places by symbol were left out of this build.
#[cfg(not(feature = "symbols"))]
#[expect(clippy::extra_unused_type_parameters, reason = "as where there are symbols")]
pub(crate) fn function_at<K: Kernel>(_: &str, _: u64) -> Result<u64, String> {
    Err(kprobes::Error::LeftOut { what: "symbols: name an address", feature: "symbols" }.to_string())
}

/// The instruction `offset` bytes behind a function's first; the name may have a module's before it.
#[cfg(feature = "symbols")]
pub(crate) fn function_at<K: Kernel>(name: &str, offset: u64) -> Result<u64, String> {
    let found = K::symbol(name)?;
    if !found.is_function {
        return Err(format!("`{name}` is no function"));
    }
    if offset != 0 && offset >= found.size {
        let size = found.size;
        return Err(format!("offset {offset:#x} is beyond the end of `{name}`, which has {size:#x} bytes"));
    }
    Ok(found.address + offset)
}
