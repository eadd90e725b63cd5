//! A file that can be loaded.

use crate::header::File;
use crate::layout::{Layout, Segment, lay_out};
use crate::linked::Linked;
use crate::relocations::Relocations;
use crate::sections::Sections;
use crate::symbols::{Place, Symbols};
use crate::{Error, relocate};

/// A relocatable file, checked and laid out, that has no address yet.
///
/// ```standalone_crate
/// # #[path = "../tests/support/mod.rs"]
/// # mod support;
/// # use support::{HOST, MAYBE};
/// use loader::{Object, PAGE, Part};
///
/// # fn main() -> Result<(), loader::Error> {
/// # let file = support::sample(&[(".data", 16, 1, HOST, 0), (".data", 24, 1, MAYBE, 0)]).bytes;
/// // The file defines `entry`, and has the addresses of `host` and, weakly, of `maybe` among its data.
/// let object = Object::parse(&file)?;
/// assert!(object.defines("entry") && !object.defines("host"));
/// assert_eq!(object.undefined().collect::<Vec<_>>(), ["host", "maybe"]);
/// assert!(object.is_optional("maybe") && !object.is_optional("host"));
///
/// assert_eq!(object.size(), 3 * PAGE);
/// let parts: Vec<_> = object.parts().iter().map(|segment| (segment.part, segment.offset)).collect();
/// assert_eq!(parts, [(Part::Text, 0), (Part::ReadOnly, PAGE), (Part::Data, 2 * PAGE)]);
///
/// let linked = object.link(0x10_0000, &mut |name| (name == "host").then_some(0x20_0000))?;
/// assert_eq!(linked.read(0x10_2010, 8), Some(0x20_0000_u64.to_le_bytes().as_slice()));
/// assert_eq!(linked.read(0x10_2018, 8), Some([0; 8].as_slice()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Object<'d> {
    pub(crate) sections: Sections<'d>,
    pub(crate) symbols: Symbols<'d>,
    pub(crate) relocations: Relocations,
    pub(crate) layout: Layout,
}

impl<'d> Object<'d> {
    /// Reads a file from its bytes, and does all checks that need no address.
    ///
    /// # Errors
    /// It is no relocatable file for 64-bit x86, contradicts itself, or needs what is not supported: see [`Error`].
    pub fn parse(bytes: &'d [u8]) -> Result<Self, Error> {
        let file = File::read(bytes)?;
        let mut sections = Sections::read(&file)?;
        let mut symbols = Symbols::read(&file, &sections)?;
        let relocations = Relocations::read(&file, &sections, &mut symbols)?;
        let layout = lay_out(&mut sections.loaded, relocations.got.len())?;
        Ok(Self { sections, symbols, relocations, layout })
    }

    /// How much memory it takes: one range, a multiple of [`PAGE`](crate::PAGE).
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layout.size
    }

    /// The segments that the range consists of, in its order, without gaps; those of each part at most once.
    #[must_use]
    pub fn parts(&self) -> &[Segment] {
        &self.layout.segments
    }

    /// The names that [`link`](Self::link) will ask for.
    pub fn undefined(&self) -> impl Iterator<Item = &'d str> {
        self.symbols.all.iter().filter(|s| s.place == Place::Undefined && s.is_needed).map(|s| s.name)
    }

    /// Whether it may do without this name: it is undefined and weak, and counts as 0 if nobody has it.
    #[must_use]
    pub fn is_optional(&self, name: &str) -> bool {
        self.symbols.all.iter().any(|s| s.place == Place::Undefined && s.is_weak && s.name == name)
    }

    /// Whether it defines a symbol with this name, and not for itself alone.
    #[must_use]
    pub fn defines(&self, name: &str) -> bool {
        let is_here = |place| matches!(place, Place::Loaded(_) | Place::Absolute);
        self.symbols.all.iter().any(|s| !s.is_local && is_here(s.place) && s.name == name)
    }

    /// Makes the module's bytes as they have to be at `base`, the address of `size()` free bytes; `resolve` tells the
    /// addresses of undefined symbols, each of which it is asked for once.
    ///
    /// # Errors
    /// `base` is no page's start, a symbol that is not weak has no address, something is out of reach, or there is not
    /// enough memory for the bytes.
    pub fn link(&self, base: u64, resolve: &mut dyn FnMut(&str) -> Option<u64>) -> Result<Linked, Error> {
        relocate::link(self, base, resolve)
    }
}
