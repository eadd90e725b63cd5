//! Writes relocatable files, right ones and, by changing a field, wrong ones.

use std::collections::BTreeMap;

pub(crate) const PROGBITS: u32 = 1;
pub(crate) const NOBITS: u32 = 8;
pub(crate) const WRITE: u64 = 1;
pub(crate) const ALLOC: u64 = 2;
pub(crate) const EXEC: u64 = 4;

/// A section header's fields: place and width.
#[derive(Clone, Copy)]
pub(crate) struct Field(pub(crate) usize, pub(crate) usize);
pub(crate) const SH_NAME: Field = Field(0, 4);
pub(crate) const SH_TYPE: Field = Field(4, 4);
pub(crate) const SH_FLAGS: Field = Field(8, 8);
pub(crate) const SH_OFFSET: Field = Field(24, 8);
pub(crate) const SH_SIZE: Field = Field(32, 8);
pub(crate) const SH_LINK: Field = Field(40, 4);
pub(crate) const SH_INFO: Field = Field(44, 4);
pub(crate) const SH_ALIGN: Field = Field(48, 8);
pub(crate) const SH_ENTSIZE: Field = Field(56, 8);
pub(crate) const ST_NAME: Field = Field(0, 4);
pub(crate) const ST_INFO: Field = Field(4, 1);
pub(crate) const ST_SHNDX: Field = Field(6, 2);
pub(crate) const ST_VALUE: Field = Field(8, 8);
pub(crate) const ST_SIZE: Field = Field(16, 8);
pub(crate) const R_OFFSET: Field = Field(0, 8);
pub(crate) const R_TYPE: Field = Field(8, 4);
pub(crate) const R_SYM: Field = Field(12, 4);

/// Symbols of [`sample`].
pub(crate) const TEXT_SECTION: u32 = 1;
pub(crate) const HELPER: u32 = 2;
pub(crate) const ENTRY: u32 = 3;
pub(crate) const HOST: u32 = 4;
pub(crate) const MAYBE: u32 = 5;
pub(crate) const VARIABLE: u32 = 6;
pub(crate) const ABSOLUTE: u32 = 7;
pub(crate) const ZEROS: u32 = 8;
pub(crate) const UNWIND: u32 = 9;

/// A relocation: section, place, type, symbol, addend.
pub(crate) type Rela = (&'static str, u64, u32, u32, i64);

struct Section {
    name: String,
    kind: u32,
    flags: u64,
    align: u64,
    data: Vec<u8>,
    /// Of a section without bytes.
    zeros: u64,
    link: u32,
    info: u32,
    entsize: u64,
}

/// A finished file.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    headers: BTreeMap<String, usize>,
}

impl Image {
    /// Changes a field of a section's header.
    #[must_use]
    pub(crate) fn section(mut self, name: &str, field: Field, value: u64) -> Self {
        let header = self.headers[name];
        put(&mut self.bytes, header + field.0, field.1, value);
        self
    }

    /// Changes a field of a symbol.
    #[must_use]
    pub(crate) fn symbol(self, index: u32, field: Field, value: u64) -> Self {
        self.entry(".symtab", 24, index, field, value)
    }

    /// Changes a field of a relocation, by its number in its section.
    #[must_use]
    pub(crate) fn relocation(self, section: &str, index: u32, field: Field, value: u64) -> Self {
        self.entry(&format!(".rela{section}"), 24, index, field, value)
    }

    /// Changes bytes anywhere.
    #[must_use]
    pub(crate) fn patch(mut self, offset: usize, width: usize, value: u64) -> Self {
        put(&mut self.bytes, offset, width, value);
        self
    }

    /// A field of a section's header.
    pub(crate) fn get(&self, name: &str, field: Field) -> u64 {
        let start = self.headers[name] + field.0;
        let mut word = [0; 8];
        word[..field.1].copy_from_slice(&self.bytes[start..start + field.1]);
        u64::from_le_bytes(word)
    }

    fn entry(self, table: &str, size: usize, index: u32, field: Field, value: u64) -> Self {
        let offset = self.get(table, SH_OFFSET) as usize + index as usize * size + field.0;
        self.patch(offset, field.1, value)
    }
}

fn put(bytes: &mut [u8], offset: usize, width: usize, value: u64) {
    bytes[offset..offset + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

fn section(name: &str, kind: u32, flags: u64, align: u64, data: &[u8]) -> Section {
    let (name, data) = (name.to_owned(), data.to_vec());
    Section { name, kind, flags, align, data, zeros: 0, link: 0, info: 0, entsize: 0 }
}

/// A module with one section of each kind that is loaded, and two that are not, with these relocations.
pub(crate) fn sample(relocations: &[Rela]) -> Image {
    let mut sections = vec![
        section(".text", PROGBITS, ALLOC | EXEC, 16, &[0x90; 60]),
        section(".rodata", PROGBITS, ALLOC, 8, b"constants.......y"),
        section(".data", PROGBITS, ALLOC | WRITE, 8, &[0x11; 32]),
        section(".bss", NOBITS, ALLOC | WRITE, 32, &[]),
        section(".eh_frame", PROGBITS, ALLOC, 8, &[0; 8]),
        section(".debug_info", PROGBITS, 0, 1, &[0; 8]),
        section(".data.rel.ro.tables", PROGBITS, ALLOC | WRITE, 8, &[0; 16]),
        section(".kprobes.text", PROGBITS, ALLOC | EXEC, 1, &[0xc3; 3]),
    ];
    sections[3].zeros = 100;
    // Name, type and binding, section, value, size.
    let symbols: [(&str, u8, u16, u64, u64); 9] = [
        ("", 0x03, 1, 0, 0),
        ("helper", 0x02, 1, 32, 8),
        ("entry", 0x12, 1, 0, 32),
        ("host", 0x10, 0, 0, 0),
        ("maybe", 0x20, 0, 0, 0),
        ("variable", 0x11, 3, 8, 8),
        ("ABSOLUTE", 0x10, 0xfff1, 0x1234, 0),
        ("zeros", 0x11, 4, 64, 8),
        ("", 0x03, 5, 0, 0),
    ];
    write(sections, &symbols, relocations)
}

fn write(mut sections: Vec<Section>, symbols: &[(&str, u8, u16, u64, u64)], relocations: &[Rela]) -> Image {
    let (mut table, mut names) = (vec![0; 24], vec![0]);
    for &(name, info, shndx, value, size) in symbols {
        let at = if name.is_empty() { 0 } else { names.len() as u32 };
        if !name.is_empty() {
            names.extend(name.bytes().chain([0]));
        }
        table.extend(at.to_le_bytes());
        table.extend([info, 0]);
        table.extend(shndx.to_le_bytes());
        table.extend([value, size].map(u64::to_le_bytes).concat());
    }
    let loaded: Vec<_> = sections.iter().map(|s| s.name.clone()).collect();
    let tables = loaded.iter().enumerate().filter(|(_, name)| relocations.iter().any(|r| r.0 == *name));
    let (count, first) = (tables.clone().count(), sections.len() + 1);
    for (index, name) in tables {
        let entries = relocations.iter().filter(|r| r.0 == name);
        let data: Vec<u8> = entries.flat_map(rela).collect();
        let mut rela = section(&format!(".rela{name}"), 4, 0, 8, &data);
        (rela.link, rela.info, rela.entsize) = ((first + count) as u32, index as u32 + 1, 24);
        sections.push(rela);
    }
    let mut symtab = section(".symtab", 2, 0, 8, &table);
    (symtab.link, symtab.entsize) = ((first + count + 1) as u32, 24);
    sections.extend([symtab, section(".strtab", 3, 0, 1, &names), section(".shstrtab", 3, 0, 1, &[])]);
    serialize(sections)
}

fn rela(&(_, offset, kind, symbol, addend): &Rela) -> Vec<u8> {
    [offset, u64::from(symbol) << 32 | u64::from(kind), addend as u64].map(u64::to_le_bytes).concat()
}

fn serialize(mut sections: Vec<Section>) -> Image {
    let mut names = vec![0];
    let mut at = Vec::new();
    for section in &sections {
        at.push(names.len() as u32);
        names.extend(section.name.bytes().chain([0]));
    }
    sections.last_mut().expect("the names are a section").data = names;
    let mut bytes = vec![0; 64];
    let mut table = vec![0; 64];
    let mut headers = BTreeMap::new();
    for (index, section) in sections.iter().enumerate() {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        headers.insert(section.name.clone(), table.len());
        let size = section.zeros.max(section.data.len() as u64);
        table.extend([at[index], section.kind].map(u32::to_le_bytes).concat());
        table.extend([section.flags, 0, bytes.len() as u64, size].map(u64::to_le_bytes).concat());
        table.extend([section.link, section.info].map(u32::to_le_bytes).concat());
        table.extend([section.align, section.entsize].map(u64::to_le_bytes).concat());
        bytes.extend(&section.data);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let start = bytes.len();
    bytes.extend(&table);
    headers.values_mut().for_each(|header| *header += start);
    bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0");
    let count = sections.len() as u64;
    for (offset, width, value) in
        [(20, 4, 1), (40, 8, start as u64), (52, 2, 64), (58, 2, 64), (60, 2, count + 1), (62, 2, count)]
    {
        put(&mut bytes, offset, width, value);
    }
    Image { bytes, headers }
}
