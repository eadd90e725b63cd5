//! Whatever is in a file, an answer or an error comes back, and nothing outside the module is written.

#[expect(dead_code, reason = "shared by all tests")]
mod support;

use loader::{Error, Object};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use support::{ENTRY, HOST, Image, MAYBE, TEXT_SECTION, VARIABLE, sample};

const BASE: u64 = 0x4000_0000;

/// Parses, links, and asks everything.
fn exercise(bytes: &[u8]) -> Result<(), Error> {
    let object = Object::parse(bytes)?;
    for name in object.undefined() {
        let _ = (object.is_optional(name), object.defines(name));
    }
    for base in [BASE, 0, u64::MAX << 24] {
        let linked = match object.link(base, &mut |name| (!name.starts_with('v')).then_some(BASE + (1 << 20))) {
            Ok(linked) => linked,
            Err(_) => continue,
        };
        assert_eq!(linked.range().end - base, object.size());
        let length: usize = linked.parts().iter().map(|part| linked.bytes(part).len()).sum();
        assert_eq!(length as u64, object.size());
        for function in linked.functions() {
            assert!(linked.range().contains(&function.address) || function.size == 0);
            let _ =
                (linked.symbol(function.name), linked.function_at(function.address), linked.read(function.address, 8));
        }
        assert!(linked.sections().all(|s| s.address >= base && s.address + s.size <= linked.range().end));
    }
    Ok(())
}

fn valid() -> Image {
    let text = [(".text", 0, 2, VARIABLE, -4), (".text", 8, 42, HOST, -4), (".text", 16, 4, HOST, -4)];
    let data = [(".data", 0, 1, ENTRY, 0), (".data", 8, 10, TEXT_SECTION, 4), (".data", 16, 24, MAYBE, 0)];
    let unwind = [(".eh_frame", 0, 2, TEXT_SECTION, 0), (".debug_info", 0, 10, TEXT_SECTION, 0)];
    sample(&[&text[..], &data, &unwind].concat())
}

#[test]
fn the_file_that_is_mutated_can_be_loaded() {
    assert_eq!(exercise(&valid().bytes), Ok(()));
}

/// Every byte on its own, with values that are often wrong.
#[test]
fn no_byte_of_a_file_is_trusted() {
    let whole = valid().bytes;
    let mut bytes = whole.clone();
    for index in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, whole[index] ^ 1, whole[index].wrapping_add(1)] {
            bytes[index] = value;
            let _ = exercise(&bytes);
        }
        bytes[index] = whole[index];
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = valid().bytes;
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        let _ = exercise(&bytes);
    }

    /// Whole fields of the tables, where the numbers are.
    #[test]
    fn changed_words_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u32..64), 1..6),
        end in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = valid().bytes;
        for (index, value, shift) in changes {
            let at = index.index(bytes.len() / 8) * 8;
            bytes[at..at + 8].copy_from_slice(&(value >> shift).to_le_bytes());
        }
        if truncate {
            bytes.truncate(end.index(bytes.len()));
        }
        let _ = exercise(&bytes);
    }

    #[test]
    fn bytes_after_a_right_header_never_panic(tail in prop::collection::vec(any::<u8>(), 0..4096)) {
        let mut bytes = valid().bytes;
        bytes.truncate(64);
        bytes.extend(tail);
        let _ = exercise(&bytes);
    }
}
