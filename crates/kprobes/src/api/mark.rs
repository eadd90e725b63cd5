//! Marking functions that no probe may be put into.

/// Puts functions where no probe may be: into the section `.kprobes.text`, in which every host refuses probes.
///
/// For what a handler calls and must not be missed in, and for what would be hit without end.
///
/// ```
/// kprobes::nokprobe! {
///     /// Adds, whatever is probed.
///     pub fn add(a: u64, b: u64) -> u64 {
///         a + b
///     }
/// }
/// assert_eq!(add(1, 2), 3);
/// ```
#[macro_export]
macro_rules! nokprobe {
    ($($function:item)*) => {$(
        // An inlined copy would be where its caller is.
        #[inline(never)]
        #[unsafe(link_section = ".kprobes.text")]
        $function
    )*};
}
