//! Which processors there are: ACPI's MADT (ACPI 6.5, 5.2.12), found by the root pointer that the loader gave.

use alloc::vec::Vec;

use crate::boot;
use crate::mm::{physical_slice, read_physical};

/// What every table begins with.
const HEADER_BYTES: u64 = 36;
/// In the MADT, before the entries.
const MADT_FIELDS: u64 = 8;
const LOCAL_APIC: u8 = 0;
const ENABLED: u32 = 1;

fn table_bytes(table: u64) -> u64 {
    u64::from(read_physical::<u32>(table + 4))
}

/// The addresses in the root table: 4 bytes each in an RSDT, 8 in an XSDT.
fn tables(rsdp: u64) -> Vec<u64> {
    let revision: u8 = read_physical(rsdp + 15);
    let (root, size) = if revision >= 2 {
        (read_physical::<u64>(rsdp + 24), 8)
    } else {
        (u64::from(read_physical::<u32>(rsdp + 16)), 4)
    };
    let entry = |at| if size == 8 { read_physical::<u64>(at) } else { u64::from(read_physical::<u32>(at)) };
    (HEADER_BYTES..table_bytes(root)).step_by(size).map(|offset| entry(root + offset)).collect()
}

/// The enabled processors' interrupt controllers. Empty without ACPI: the kernel then runs on one.
pub(crate) fn local_apics() -> Vec<u32> {
    let rsdp = boot::rsdp();
    if rsdp == 0 || physical_slice(rsdp, 8) != b"RSD PTR " {
        return Vec::new();
    }
    tables(rsdp).into_iter().find(|&table| physical_slice(table, 4) == b"APIC").map(enabled).unwrap_or_default()
}

fn enabled(madt: u64) -> Vec<u32> {
    let mut found = Vec::new();
    let mut offset = HEADER_BYTES + MADT_FIELDS;
    while offset + 2 <= table_bytes(madt) {
        let [kind, bytes]: [u8; 2] = read_physical(madt + offset);
        if kind == LOCAL_APIC && read_physical::<u32>(madt + offset + 4) & ENABLED != 0 {
            found.push(u32::from(read_physical::<u8>(madt + offset + 3)));
        }
        // An entry without a length would be read for ever.
        offset += u64::from(bytes.max(2));
    }
    found
}
