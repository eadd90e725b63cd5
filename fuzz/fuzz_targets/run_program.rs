//! Any bytes run as code and any payload decodes, in a record of any size.
#![no_main]

struct Memory<'a>(&'a [u8]);

impl events::Source for Memory<'_> {
    fn register(&self, index: u8) -> u64 {
        u64::from(index)
    }

    fn return_value(&self) -> u64 {
        1
    }

    fn comm(&self, out: &mut [u8; 16]) {
        out.fill(b'c');
    }

    fn read(&self, addr: u64, out: &mut [u8]) -> bool {
        let there = usize::try_from(addr).ok().and_then(|at| self.0.get(at..)?.get(..out.len()));
        there.map(|bytes| out.copy_from_slice(bytes)).is_some()
    }

    fn read_string(&self, addr: u64, out: &mut [u8]) -> Option<usize> {
        let bytes = self.0.get(usize::try_from(addr).ok()?..)?;
        let len = bytes.iter().position(|byte| *byte == 0)?.min(out.len());
        out[..len].copy_from_slice(&bytes[..len]);
        Some(len)
    }
}

libfuzzer_sys::fuzz_target!(|input: (u8, &str, &[u8])| {
    let (size, line, code) = input;
    let mut out = vec![0; usize::from(size)];
    let len = events::run(code, &Memory(code), &mut out);
    if let Ok(definition) = events::parse(line) {
        let fields = definition.args.into_iter().map(|arg| events::Field { name: arg.name, ty: arg.ty }).collect();
        let _ = events::decode(&events::Schema { fields }, &out[..len]);
    }
});
