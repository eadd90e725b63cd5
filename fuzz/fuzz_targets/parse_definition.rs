//! Any line is parsed or refused, and what is parsed prints as a line that means the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|line: &str| {
    match events::parse(line) {
        Ok(definition) => assert_eq!(events::parse(&definition.to_string()), Ok(definition)),
        Err(error) => assert!(error.column <= line.len() && !error.render(line).is_empty()),
    }
});
