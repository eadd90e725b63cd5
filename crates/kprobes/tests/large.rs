//! Large batches cost a few calls of the host's for each probe, wherever the probes are.

use hit::OP_WORDS;
use kprobes::{
    Error, Function, Host, Image, Isa, ProbeData, ProbeKind, Registry, Request, ReturnScheme, SiteData, Stepping,
};

const BATCH: usize = 20_000;
const TEXT: u64 = 0x1_0000;
const FUNCTION: u64 = 64;

/// An instruction set of single bytes.
struct Bytes;

impl Isa for Bytes {
    type Plan = ();
    type Window = ();

    const BREAKPOINT: u8 = 0xCC;
    const MAX_LENGTH: usize = 1;

    fn plan(_: &[u8], _: u64) -> Result<(), String> {
        Ok(())
    }

    fn length((): &()) -> u8 {
        1
    }

    fn operation((): &()) -> Option<[u64; OP_WORDS]> {
        None
    }

    fn how((): &(), _: Stepping) -> u32 {
        0
    }

    fn check_followed((): &()) -> Result<(), String> {
        Ok(())
    }

    fn image((): &(), _: u64, _: u64, _: u32) -> Result<Image, String> {
        Ok(Image { code: vec![0], ..Image::default() })
    }

    fn boundaries(code: &[u8], start: u64) -> Vec<u64> {
        (start..start + code.len() as u64).collect()
    }
}

/// A text of nothing but zeros, in functions of equal size.
struct Zeros {
    text: Vec<u8>,
    calls: usize,
    /// A handler cannot end before the caller goes on.
    busy: bool,
}

impl Zeros {
    fn new() -> Self {
        Self { text: vec![0; 2 * BATCH], calls: 0, busy: false }
    }

    fn count<T>(&mut self, value: T) -> Result<T, Error> {
        self.calls += 1;
        Ok(value)
    }
}

impl Host for Zeros {
    type Isa = Bytes;

    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Error> {
        let at = (address - TEXT) as usize;
        let from = self.text.get(at..at + out.len()).ok_or(Error::NotText { address })?;
        out.copy_from_slice(from);
        self.count(())
    }

    fn function(&mut self, address: u64) -> Result<Function, Error> {
        let start = address / FUNCTION * FUNCTION;
        self.count(Function { start, code: vec![0; FUNCTION as usize] })
    }

    fn return_scheme(&mut self, _: u64) -> Result<ReturnScheme, Error> {
        self.count(ReturnScheme::Stub)
    }

    fn slot(&mut self, address: u64) -> Result<u64, Error> {
        self.count(address)
    }

    fn write_slot(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        self.count(())
    }

    fn store_program(&mut self, _: &[u8]) -> Result<u32, Error> {
        self.count(0)
    }

    fn store_site(&mut self, _: u32, _: &SiteData) -> Result<(), Error> {
        self.count(())
    }

    fn publish(&mut self, _: u64, _: u64) -> Result<(), Error> {
        self.count(())
    }

    fn store_probe(&mut self, _: u32, _: &ProbeData) -> Result<(), Error> {
        self.count(())
    }

    fn set_state(&mut self, _: u32, _: u32) -> Result<(), Error> {
        self.count(())
    }

    fn set_first(&mut self, _: u32, _: u32) -> Result<(), Error> {
        self.count(())
    }

    fn set_next(&mut self, _: u32, _: u32) -> Result<(), Error> {
        self.count(())
    }

    fn set_armed(&mut self, _: u32, _: bool) -> Result<(), Error> {
        self.count(())
    }

    fn patch(&mut self, bytes: &[(u64, u8)]) -> Result<(), Error> {
        for &(address, byte) in bytes {
            let place = self.text.get_mut((address - TEXT) as usize).ok_or(Error::NotText { address })?;
            *place = byte;
        }
        self.count(())
    }

    fn grace(&mut self) -> bool {
        self.calls += 1;
        !self.busy
    }
}

/// Registers and unregisters a probe at each of `addresses`, in two halves, with `most` calls for each probe.
fn register_and_unregister(addresses: impl Iterator<Item = u64>, most: usize) {
    let (mut registry, mut host) = (Registry::new(0, 0), Zeros::new());
    let request = |address: u64| {
        let program = address.to_le_bytes().into();
        Request { record: true, program, ..Request::counting(address, ProbeKind::Entry, 0) }
    };
    let requests: Vec<Request> = addresses.map(request).collect();
    let count = requests.len();
    let handles = registry.register(&mut host, &requests).expect("nothing fails");
    let (odd, even): (Vec<_>, Vec<_>) = handles.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
    for half in [odd, even] {
        let half: Vec<_> = half.into_iter().map(|(_, handle)| handle).collect();
        registry.unregister(&mut host, &half).expect("nothing fails");
    }
    assert!(host.text.iter().all(|&b| b == 0));
    assert!(host.calls < most * count, "{} calls", host.calls);
    assert_eq!(registry.used().1 as usize, count);
}

#[test]
fn twenty_thousand_probes_at_as_many_addresses_take_a_few_calls_each() {
    register_and_unregister((TEXT..).take(BATCH), 15);
}

#[test]
fn as_many_probes_as_there_can_be_at_one_address_take_a_few_calls_each() {
    register_and_unregister(core::iter::repeat_n(TEXT, hit::MAX_CHAIN), 6);
}

#[test]
fn more_probes_at_one_address_than_are_run_are_refused() {
    let (mut registry, mut host) = (Registry::new(0, 0), Zeros::new());
    let request = Request::counting(TEXT, ProbeKind::Entry, 0);
    let many = vec![request; hit::MAX_CHAIN + 1];
    let full = Error::Full { what: "probes at one address", limit: hit::MAX_CHAIN };
    assert_eq!(registry.register(&mut host, &many), Err((hit::MAX_CHAIN, full.clone())));
    assert!(registry.register(&mut host, &many[..hit::MAX_CHAIN]).is_ok());
    assert_eq!(registry.register(&mut host, &many[..1]), Err((0, full)));
}

#[test]
fn twenty_thousand_probes_are_switched_off_and_on_with_a_few_calls_each() {
    let (mut registry, mut host) = (Registry::new(0, 0), Zeros::new());
    let requests: Vec<Request> =
        (TEXT..).take(BATCH).map(|address| Request::counting(address, ProbeKind::Entry, 0)).collect();
    let handles = registry.register(&mut host, &requests).expect("nothing fails");
    let armed = host.text.clone();
    for on in [false, true] {
        host.calls = 0;
        registry.enable(&mut host, &handles, on).expect("nothing fails");
        assert_eq!(host.text == armed, on);
        assert!(host.calls < 6 * BATCH, "{} calls", host.calls);
    }
}

#[test]
fn places_are_kept_while_a_handler_may_stand_on_them() {
    let (mut registry, mut host) = (Registry::new(0, 0), Zeros::new());
    let register = |registry: &mut Registry, host: &mut Zeros| {
        let request = Request::counting(TEXT, ProbeKind::Entry, 0);
        registry.register(host, &[request]).map(|mut handles| handles.remove(0)).expect("a probe")
    };
    let first = register(&mut registry, &mut host);
    host.busy = true;
    registry.unregister(&mut host, [&first]).expect("taken off");
    let second = register(&mut registry, &mut host);
    assert_eq!(registry.used(), (1, 2), "the first one's place was used again");
    host.busy = false;
    registry.unregister(&mut host, [&second]).expect("taken off");
    let _others = [register(&mut registry, &mut host), register(&mut registry, &mut host)];
    assert_eq!(registry.used(), (1, 2), "two places were free");
}
