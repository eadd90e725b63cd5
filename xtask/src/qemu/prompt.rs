//! Seeing the prompt in a stream of bytes.

/// What the shell prints when it is ready, at the beginning of a line.
const PROMPT: &[u8] = b"> ";

/// Counts prompts in output that comes in pieces of any size, cut anywhere.
#[derive(Debug)]
pub(super) struct Prompts {
    /// How much of the prompt the current line has begun with; none if it began otherwise.
    matched: Option<usize>,
}

impl Prompts {
    /// Before the first byte, which begins a line.
    pub(super) const fn new() -> Self {
        Self { matched: Some(0) }
    }

    /// How many prompts have been completed by these bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> usize {
        bytes.iter().filter(|byte| self.completes(**byte)).count()
    }

    fn completes(&mut self, byte: u8) -> bool {
        if byte == b'\n' || byte == b'\r' {
            self.matched = Some(0);
            return false;
        }
        self.matched = self.matched.filter(|&matched| PROMPT.get(matched) == Some(&byte)).map(|matched| matched + 1);
        self.matched == Some(PROMPT.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(pieces: &[&str]) -> usize {
        let mut prompts = Prompts::new();
        pieces.iter().map(|piece| prompts.feed(piece.as_bytes())).sum()
    }

    #[test]
    fn a_prompt_begins_a_line() {
        assert_eq!(prompts(&["> ls\r\na\r\n> "]), 2);
    }

    #[test]
    fn a_prompt_may_be_cut_anywhere() {
        assert_eq!(prompts(&["booting\n>", " ", "", "ls\n", "> "]), 2);
    }

    #[test]
    fn an_arrow_within_a_line_is_no_prompt() {
        assert_eq!(prompts(&["a > b\n->  \n>> \n >\n"]), 0);
    }

    #[test]
    fn each_prompt_counts_once() {
        assert_eq!(prompts(&["> ", "> ", " > "]), 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_passed_over() {
        let mut prompts = Prompts::new();
        assert_eq!(prompts.feed(&[0xff, 0, 0x80, b'>', b' ', b'\n', b'>', b' ', 0xfe]), 1);
    }
}
