//! Where a probe would go and how, in a file or in a running process, without touching anything.

use super::catalogue::Catalogue;
use super::groups::{Matched, matched};
use super::member::kind_of;
use super::objects::{Cache, Mapped, Objects};
use super::resolve::{FetchSymbols, Resolved, resolve};
use super::{HostError, Result, returns};
use arch::x86::{User, X86};
use events::{Definition, Place, compile};
use hit::ORIGINAL_BYTES;
use kprobes::{Error, Function, ProbeData, Registry, Request, ReturnScheme, SiteData, Stepping};
use std::path::Path;
use std::sync::Arc;

/// What `check` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would be placed: where (address, `OBJECT:SYMBOL+OFFSET`), how, and remarks.
    Placed {
        /// The address: in the process, or in the file.
        address: u64,
        /// The same in words.
        place: String,
        /// How.
        how: String,
        /// The instruction.
        instruction: String,
        /// Remarks.
        note: Option<String>,
    },
    /// A pattern: what would become of each function that it matches, with the name of its event.
    Matched(Vec<(String, Self)>),
    /// It would wait for this object.
    Pending(String),
    /// It would be refused: why.
    Refused(String),
}

/// The objects of a running process, or a single file taken as mapped where it was linked.
///
/// ```
/// use host_process::control::{Verdict, View};
///
/// let mut process = View::of_process(std::process::id().cast_signed())?;
/// assert!(process.objects().all.iter().any(|object| object.is_called("libc.so.6")));
/// let Verdict::Placed { place, .. } = process.check(&events::parse("p libc.so.6:atoi")?) else { panic!() };
/// assert!(place.starts_with("libc.so.6:atoi+0x0/"));
/// let Verdict::Matched(functions) = process.check(&events::parse("p libc.so.6:ato*")?) else { panic!() };
/// assert!(functions.iter().any(|(name, verdict)| name == "atoi" && matches!(verdict, Verdict::Placed { .. })));
/// let Verdict::Refused(why) = process.check(&events::parse("p libc.so.6:atoii")?) else { panic!() };
/// assert!(why.contains("the nearest names: atoi"));
///
/// // What a file alone does not have would be waited for.
/// let mut file = View::of_file(&std::env::current_exe()?)?;
/// assert_eq!(file.check(&events::parse("p libc.so.6:atoi")?), Verdict::Pending("libc.so.6".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct View {
    objects: Objects,
    pid: Option<i32>,
    registry: Registry,
    places_jumps: bool,
}

impl View {
    /// A running process.
    ///
    /// # Errors
    ///
    /// When there is none, or it may not be looked at.
    pub fn of_process(pid: i32) -> Result<Self> {
        Self::with(pid, &mut Cache::default())
    }

    /// As [`of_process`](Self::of_process), of files that may have been read before.
    pub(crate) fn with(pid: i32, cache: &mut Cache) -> Result<Self> {
        symbols::Object::read(&super::process::executable(pid)).map_err(|error| match error {
            symbols::ObjectError::NotFound { .. } => HostError::NoProcess { pid },
            other => HostError::Object(other),
        })?;
        Ok(Self {
            objects: Objects::read(pid, cache)?,
            pid: Some(pid),
            registry: Registry::new(0, 0),
            places_jumps: true,
        })
    }

    /// A file.
    ///
    /// # Errors
    ///
    /// When it is no ELF file for this machine.
    pub fn of_file(path: &Path) -> Result<Self> {
        let object = Arc::new(symbols::Object::read(path)?);
        let loads = object.loads().iter().filter(|l| l.is_executable());
        let code = loads.map(|l| l.vaddr..l.vaddr + l.memsz).collect();
        let mapped = Mapped { path: path.to_string_lossy().into_owned(), object, bias: 0, code, file: (0, 0, 0) };
        Ok(Self {
            objects: Objects { all: vec![mapped] },
            pid: None,
            registry: Registry::new(0, 0),
            places_jumps: true,
        })
    }

    /// Probes would be placed by breakpoints, also where there could be jumps.
    ///
    /// ```
    /// # use host_process::control::{Verdict, View};
    /// let mut view = View::of_process(std::process::id().cast_signed())?.by_breakpoints();
    /// let Verdict::Placed { how, .. } = view.check(&events::parse("p libc.so.6:atoi")?) else { panic!() };
    /// assert!(how.starts_with("breakpoint, "));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn by_breakpoints(self) -> Self {
        Self { places_jumps: false, ..self }
    }

    /// The objects.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Where and how `definition` would be placed.
    #[must_use]
    pub fn check(&mut self, definition: &Definition) -> Verdict {
        // A single file stands for all that is mapped: what it lacks would be waited for.
        let complete = self.pid.is_some() || definition.object().is_none();
        if let Place::Pattern { .. } = &definition.place {
            return self.check_pattern(definition, complete);
        }
        match resolve(&self.objects, &definition.place, complete) {
            Resolved::Address { address, note } => self.check_at(definition, address, note),
            Resolved::Pending(object) => Verdict::Pending(object),
            Resolved::Failed(why) => Verdict::Refused(why),
        }
    }

    fn check_pattern(&mut self, definition: &Definition, complete: bool) -> Verdict {
        let mut catalogue = Catalogue::new(core::slice::from_ref(definition));
        let found = match matched(&self.objects, 0, definition, complete, &mut catalogue) {
            Matched::Blocks(blocks) => blocks,
            Matched::Waits(place) => return Verdict::Pending(place),
            Matched::Nothing(why) => return Verdict::Refused(why),
        };
        let mut functions = Vec::new();
        for (block, object) in found {
            let bias = self.objects.all.get(object).map_or(0, |object| object.bias);
            for (at, vaddr) in block.addresses().enumerate() {
                let name = block.name(at).filter(|_| block.is_each()).unwrap_or_else(|| definition.event_name());
                functions.push((name, self.check_at(definition, vaddr.wrapping_add(bias), None)));
            }
        }
        Verdict::Matched(functions)
    }

    fn check_at(&mut self, definition: &Definition, address: u64, note: Option<String>) -> Verdict {
        if let Err(error) = compile(definition, &FetchSymbols(&self.objects)) {
            return Verdict::Refused(error.to_string());
        }
        let request = Request::counting(address, kind_of(definition), 0);
        let mut host = Still { objects: &self.objects, places_jumps: self.places_jumps };
        match self.registry.foresee(&mut host, &request) {
            Ok(placement) => Verdict::Placed {
                address,
                place: self.place(address),
                how: placement.to_string(),
                instruction: self.instruction(address),
                note,
            },
            Err(error) => Verdict::Refused(error.to_string()),
        }
    }

    fn place(&self, address: u64) -> String {
        match (self.objects.symbolize(address), self.objects.at(address)) {
            (Some((name, offset, size)), Some(object)) => {
                format!("{}:{name}+{offset:#x}/{size:#x}", object.base_name())
            }
            _ => format!("{address:#x}"),
        }
    }

    fn instruction(&self, address: u64) -> String {
        let object = self.objects.at(address);
        let bytes = object.and_then(|o| original(o, address));
        bytes.and_then(|b| isa::x86::disassemble(&b, address)).unwrap_or_default()
    }
}

fn original(object: &Mapped, address: u64) -> Option<Vec<u8>> {
    let vaddr = object.to_file(address);
    (1..=ORIGINAL_BYTES).rev().find_map(|n| object.object.code(vaddr, n)).map(<[u8]>::to_vec)
}

/// A host that only looks: code comes from the files, and nothing can be changed.
struct Still<'a> {
    objects: &'a Objects,
    places_jumps: bool,
}

const READ_ONLY: &str = "a check changes nothing";

fn refuse<T>() -> core::result::Result<T, Error> {
    Err(Error::Host(READ_ONLY.into()))
}

impl kprobes::Host for Still<'_> {
    type Isa = X86<User>;

    fn read(&mut self, address: u64, out: &mut [u8]) -> core::result::Result<(), Error> {
        let object = self.objects.at(address).ok_or(Error::NotText { address })?;
        let code = object.object.code(object.to_file(address), out.len()).ok_or(Error::NotText { address })?;
        out.copy_from_slice(code);
        Ok(())
    }

    fn function(&mut self, address: u64) -> core::result::Result<Function, Error> {
        super::target::function_in(self.objects, address)
    }

    fn return_scheme(&mut self, start: u64) -> core::result::Result<ReturnScheme, Error> {
        let function = self.function(start)?;
        returns::scheme(self.objects, &function)
    }

    fn stepping(&self) -> Stepping {
        Stepping::Jump
    }

    fn has_detours(&self) -> bool {
        self.places_jumps && super::target::can_jump()
    }

    fn may_displace(&mut self, range: core::ops::Range<u64>) -> bool {
        super::target::may_displace(self.objects, &range)
    }

    fn slot(&mut self, _: u64) -> core::result::Result<u64, Error> {
        refuse()
    }

    fn write_slot(&mut self, _: u64, _: &[u8]) -> core::result::Result<(), Error> {
        refuse()
    }

    fn store_program(&mut self, _: &[u8]) -> core::result::Result<u32, Error> {
        refuse()
    }

    fn store_site(&mut self, _: u32, _: &SiteData) -> core::result::Result<(), Error> {
        refuse()
    }

    fn publish(&mut self, _: u64, _: u64) -> core::result::Result<(), Error> {
        refuse()
    }

    fn store_probe(&mut self, _: u32, _: &ProbeData) -> core::result::Result<(), Error> {
        refuse()
    }

    fn set_state(&mut self, _: u32, _: u32) -> core::result::Result<(), Error> {
        refuse()
    }

    fn set_first(&mut self, _: u32, _: u32) -> core::result::Result<(), Error> {
        refuse()
    }

    fn set_next(&mut self, _: u32, _: u32) -> core::result::Result<(), Error> {
        refuse()
    }

    fn set_armed(&mut self, _: u32, _: bool) -> core::result::Result<(), Error> {
        refuse()
    }

    fn patch(&mut self, _: &[(u64, u8)]) -> core::result::Result<(), Error> {
        refuse()
    }

    fn grace(&mut self) -> bool {
        true
    }
}
