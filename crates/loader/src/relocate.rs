//! Gives an object an address: the bytes of its range, relocated.

use crate::layout::{GOT_ENTRY, PAGE, Part};
use crate::linked::Linked;
use crate::relocations::{Form, Relocation};
use crate::symbols::{Place, Symbol};
use crate::{Error, Object, with_room};
use alloc::vec::Vec;

/// `int3`, what stands between functions.
const BREAKPOINT: u8 = 0xcc;

pub(crate) fn link(
    object: &Object<'_>,
    base: u64,
    resolve: &mut dyn FnMut(&str) -> Option<u64>,
) -> Result<Linked, Error> {
    let size = object.size();
    if !base.is_multiple_of(PAGE) || base.checked_add(size).is_none() {
        return Err(Error::BadBase { base, size });
    }
    let addresses = addresses(object, base, resolve)?;
    let mut linker = Linker { object, base, addresses, bytes: image(object)? };
    linker.fill_table();
    for relocation in &object.relocations.all {
        linker.apply(relocation)?;
    }
    Linked::new(object, base, &linker.addresses, linker.bytes)
}

/// The value of each symbol; 0 for those that nothing needs and nobody has.
fn addresses(object: &Object<'_>, base: u64, resolve: &mut dyn FnMut(&str) -> Option<u64>) -> Result<Vec<u64>, Error> {
    let mut addresses = with_room(object.symbols.all.len())?;
    for symbol in &object.symbols.all {
        addresses.push(match symbol.place {
            Place::Absolute => symbol.value,
            Place::Loaded(section) => base + object.sections.loaded[section as usize].offset + symbol.value,
            Place::Undefined if symbol.is_needed => resolved(symbol, resolve(symbol.name))?,
            Place::Undefined | Place::Dropped => 0,
        });
    }
    Ok(addresses)
}

fn resolved(symbol: &Symbol<'_>, address: Option<u64>) -> Result<u64, Error> {
    match address {
        Some(address) => Ok(address),
        None if symbol.is_weak => Ok(0),
        None => Err(Error::Unresolved { symbol: symbol.shown() }),
    }
}

/// The bytes of the whole range before relocation.
fn image(object: &Object<'_>) -> Result<Vec<u8>, Error> {
    // Everything fits: the layout has put all sections inside its size, which is far below what memory can hold.
    let mut bytes = with_room(object.size() as usize)?;
    for segment in object.parts() {
        let filler = if segment.part == Part::Text { BREAKPOINT } else { 0 };
        bytes.resize((segment.offset + segment.size) as usize, filler);
    }
    for section in &object.sections.loaded {
        let start = section.offset as usize;
        if section.is_zeros() {
            bytes[start..start + section.size as usize].fill(0);
        } else {
            bytes[start..start + section.bytes.len()].copy_from_slice(section.bytes);
        }
    }
    Ok(bytes)
}

struct Linker<'a, 'd> {
    object: &'a Object<'d>,
    base: u64,
    /// The value of each symbol.
    addresses: Vec<u64>,
    bytes: Vec<u8>,
}

impl Linker<'_, '_> {
    fn fill_table(&mut self) {
        for (entry, &symbol) in self.object.relocations.got.iter().enumerate() {
            let offset = self.object.layout.got + entry as u64 * GOT_ENTRY;
            self.write(offset, &self.addresses[symbol as usize].to_le_bytes());
        }
    }

    fn apply(&mut self, relocation: &Relocation) -> Result<(), Error> {
        let offset = self.object.sections.loaded[relocation.section as usize].offset + relocation.offset;
        let place = self.base + offset;
        let value = self.value(relocation, place);
        // Addresses are numbers modulo 2^64, for the processor as well: what wraps around is right.
        let fits = match relocation.kind.form {
            Form::Absolute64 | Form::Relative64 => true,
            Form::Absolute32 => u32::try_from(value).is_ok(),
            Form::Absolute32Signed | Form::Relative32 | Form::Table32 => i32::try_from(value as i64).is_ok(),
        };
        if !fits {
            return Err(self.out_of_reach(relocation, place, value));
        }
        let bytes = value.to_le_bytes();
        self.write(offset, &bytes[..relocation.kind.width() as usize]);
        Ok(())
    }

    fn value(&self, relocation: &Relocation, place: u64) -> u64 {
        let target = self.addresses[relocation.symbol as usize].wrapping_add_signed(relocation.addend);
        match relocation.kind.form {
            Form::Absolute64 | Form::Absolute32 | Form::Absolute32Signed => target,
            Form::Relative64 | Form::Relative32 => target.wrapping_sub(place),
            Form::Table32 => self.table_entry(relocation).wrapping_add_signed(relocation.addend).wrapping_sub(place),
        }
    }

    /// The address of the table's entry for a relocation's symbol, which has one if a relocation asks for it.
    fn table_entry(&self, relocation: &Relocation) -> u64 {
        let entry = self.object.symbols.all[relocation.symbol as usize].got.unwrap_or(0);
        self.base + self.object.layout.got + u64::from(entry) * GOT_ENTRY
    }

    /// Writes inside the range: checked when the object was parsed.
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let start = offset as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn out_of_reach(&self, relocation: &Relocation, place: u64, value: u64) -> Error {
        let symbol = &self.object.symbols.all[relocation.symbol as usize];
        Error::OutOfReach {
            symbol: symbol.shown(),
            kind: relocation.kind.name,
            place,
            target: self.addresses[relocation.symbol as usize],
            value: value as i64,
        }
    }
}
