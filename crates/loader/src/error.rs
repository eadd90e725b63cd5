//! Why a file cannot be loaded.

use crate::{MAX_SIZE, PAGE};
use alloc::string::String;

/// A refusal. Names come from the file, shortened, with what cannot be printed escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // The file as a whole.
    /// The file does not begin with ELF's magic number.
    #[error("not an ELF file")]
    NotElf,
    /// The file is for 32-bit programs.
    #[error("a 32-bit ELF file; a module is built for x86_64")]
    Not64Bit,
    /// The file's numbers have their high bytes first.
    #[error("a big-endian ELF file; a module is built for x86_64")]
    BigEndian,
    /// The file is for another processor.
    #[error("made for another processor ({machine}); a module is built for x86_64")]
    OtherMachine {
        /// Its name in the ELF specification, or its number.
        machine: String,
    },
    /// A version of ELF that does not exist yet.
    #[error("ELF version {version}; there is only version 1")]
    OtherVersion {
        /// The version.
        version: u32,
    },
    /// The file is no relocatable one.
    #[error("{what}; a relocatable file is wanted (what `gcc -c` or `ld -r` writes)")]
    NotRelocatable {
        /// What it is instead.
        what: &'static str,
    },
    /// The file ends before something that its headers promise.
    #[error("truncated: {what} should end at byte {end:#x}, the file has {len:#x}")]
    Truncated {
        /// What is cut off.
        what: String,
        /// Where it should end.
        end: u64,
        /// The length of the file.
        len: u64,
    },
    /// The entries of a table have another size than ELF gives them.
    #[error("corrupt: {table} has entries of {size} bytes, ELF's have {expected}")]
    EntrySize {
        /// The table.
        table: String,
        /// The size in the file.
        size: u64,
        /// The right one.
        expected: u64,
    },
    /// The length of a table is no multiple of its entries'.
    #[error("corrupt: {table} has {size} bytes, which is no whole number of entries of {entry}")]
    PartialEntry {
        /// The table.
        table: String,
        /// Its length.
        size: u64,
        /// An entry's.
        entry: u64,
    },
    /// More of something than any module needs.
    #[error("too many {what}: {count}, at most {limit} are loaded")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many the file has.
        count: u64,
        /// How many there may be.
        limit: u64,
    },
    /// There is not enough memory to load it.
    #[error("not enough memory to load the module")]
    OutOfMemory,

    // Sections.
    /// There is no table of sections.
    #[error("has no sections: nothing of it can be loaded")]
    NoSections,
    /// No section takes memory.
    #[error("has neither code nor data")]
    Empty,
    /// Two parts of the file use the same bytes of it.
    #[error("corrupt: {first} and {second} overlap in the file")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// A name lies outside the table of names, does not end, is too long or is no UTF-8.
    #[error("corrupt: the name of {what} number {index} {why}")]
    BadName {
        /// `section` or `symbol`.
        what: &'static str,
        /// Its index.
        index: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A section that refers to a table refers to something else.
    #[error("corrupt: {section} refers to section {index} as its {what}, which that is not")]
    BadLink {
        /// The section that refers.
        section: String,
        /// To which.
        index: u64,
        /// As what.
        what: &'static str,
    },
    /// A section that can be written and executed.
    #[error("section {section} is both writable and executable, which no memory of a module may be")]
    WritableAndExecutable {
        /// The section.
        section: String,
    },
    /// Memory for each thread.
    #[error("{name} is thread-local storage, which a module cannot have: its host's threads have no room for it")]
    ThreadLocal {
        /// The section or symbol.
        name: String,
    },
    /// Code that wants to run before the module's own.
    #[error(
        "section {section} lists constructors or destructors: nobody would call them; use the module's init and exit"
    )]
    Constructors {
        /// The section.
        section: String,
    },
    /// A section whose bytes would have to be unpacked.
    #[error("section {section} is compressed")]
    Compressed {
        /// The section.
        section: String,
    },
    /// A section of a type that means nothing in a module.
    #[error("section {section} has type {kind}, which cannot be loaded")]
    SectionKind {
        /// The section.
        section: String,
        /// Its type.
        kind: String,
    },
    /// An alignment that is no power of two, or more than a page.
    #[error("section {section} wants to be aligned to {align}; up to {PAGE}, and only powers of two, can be done")]
    Alignment {
        /// The section.
        section: String,
        /// The alignment.
        align: u64,
    },
    /// The module takes too much memory.
    #[error("takes more memory than a module may have: {section} ends at {end:#x}, the limit is {MAX_SIZE:#x}")]
    TooLarge {
        /// The section that does not fit any more.
        section: String,
        /// Where it would end.
        end: u64,
    },

    // Symbols.
    /// There is no symbol table.
    #[error("has no symbols: it was stripped, and cannot be loaded without them")]
    NoSymbols,
    /// There is more than one symbol table.
    #[error("corrupt: has more than one symbol table")]
    SeveralSymbolTables,
    /// A name is defined more than once.
    #[error("corrupt: the symbol {symbol} is there twice")]
    DuplicateSymbol {
        /// The name.
        symbol: String,
    },
    /// A symbol that is undefined and has no name.
    #[error("corrupt: symbol {index} is undefined and has no name")]
    NamelessSymbol {
        /// Its index.
        index: u64,
    },
    /// A variable that any file may define.
    #[error("{symbol} is a common symbol, which belongs to no section: compile with -fno-common")]
    CommonSymbol {
        /// The symbol.
        symbol: String,
    },
    /// A function that is chosen by running another.
    #[error("{symbol} is an indirect function (ifunc): its resolver would have to be run to load the module")]
    IndirectFunction {
        /// The symbol.
        symbol: String,
    },
    /// A symbol of an unknown type or binding.
    #[error("the symbol {symbol} has {what} {value}, which is unknown")]
    SymbolKind {
        /// The symbol.
        symbol: String,
        /// `type` or `binding`.
        what: &'static str,
        /// Its number.
        value: u8,
    },
    /// A symbol in a section that does not exist.
    #[error("corrupt: the symbol {symbol} is in section {section:#x}, which does not exist")]
    SymbolSection {
        /// The symbol.
        symbol: String,
        /// The section's number.
        section: u64,
    },
    /// A symbol that does not lie in its section.
    #[error("corrupt: the symbol {symbol} ({size:#x} bytes at {value:#x}) is not inside {section}, of {len:#x} bytes")]
    SymbolOutside {
        /// The symbol.
        symbol: String,
        /// Its place in the section.
        value: u64,
        /// Its size.
        size: u64,
        /// The section.
        section: String,
        /// The section's size.
        len: u64,
    },

    // Relocations.
    /// Relocations for a section that does not exist.
    #[error("corrupt: {section} relocates section {target}, which does not exist")]
    RelocationTarget {
        /// The section with the relocations.
        section: String,
        /// What it relocates.
        target: u64,
    },
    /// Relocations without addends, or packed ones.
    #[error("the relocations of {section} are in the form {form}; those of x86_64 are in RELA form")]
    RelocationForm {
        /// The section that they are for.
        section: String,
        /// Their form.
        form: &'static str,
    },
    /// A relocation of a type that is not supported.
    #[error("{section}+{offset:#x}: relocations of type {kind} are not supported")]
    RelocationKind {
        /// The section.
        section: String,
        /// The place in it.
        offset: u64,
        /// The type's name, or number.
        kind: String,
    },
    /// A relocation that would write outside its section.
    #[error("corrupt: {kind} at {section}+{offset:#x} writes outside the section, which has {len:#x} bytes")]
    RelocationOutside {
        /// The section.
        section: String,
        /// The place.
        offset: u64,
        /// The type.
        kind: &'static str,
        /// The section's size.
        len: u64,
    },
    /// A relocation in memory that has no bytes in the file.
    #[error("corrupt: a relocation at {section}+{offset:#x}, where the file has nothing to relocate")]
    RelocationInZeros {
        /// The section.
        section: String,
        /// The place.
        offset: u64,
    },
    /// A relocation that names a symbol which does not exist.
    #[error("corrupt: the relocation at {section}+{offset:#x} names symbol {index}, there are {count}")]
    SymbolIndex {
        /// The section.
        section: String,
        /// The place.
        offset: u64,
        /// The symbol's index.
        index: u64,
        /// How many symbols there are.
        count: u64,
    },
    /// What is loaded refers to what is not.
    #[error("{section}+{offset:#x} refers to {symbol}, in a section that is not loaded")]
    NotLoaded {
        /// The section that refers.
        section: String,
        /// The place in it.
        offset: u64,
        /// The symbol.
        symbol: String,
    },

    // Linking.
    /// The address is not one that a module can be put at.
    #[error("{base:#x} is no address for a module of {size:#x} bytes: not the start of a page, or too high")]
    BadBase {
        /// The address.
        base: u64,
        /// The module's size.
        size: u64,
    },
    /// A name that the module needs and the host does not have.
    #[error("undefined symbol {symbol}: the module needs it, and its host does not have it")]
    Unresolved {
        /// The name.
        symbol: String,
    },
    /// A value that does not fit into the instruction or word it is for.
    #[error("{place:#x} does not reach {symbol} at {target:#x}: {kind} holds 32 bits, the value would be {value:#x}")]
    OutOfReach {
        /// What is referred to.
        symbol: String,
        /// The relocation's type.
        kind: &'static str,
        /// The address of the place to be relocated.
        place: u64,
        /// The symbol's address.
        target: u64,
        /// The value: a distance, or for absolute relocations an address.
        value: i64,
    },
}
