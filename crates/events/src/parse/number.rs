//! Numbers as Linux reads them (`lib/kstrtox.c`): `0x` hexadecimal, a leading `0` octal, otherwise decimal.

/// `kstrtoull(text, 0)`: one `+` may stand before.
pub(super) fn unsigned(text: &str) -> Option<u64> {
    magnitude(text.strip_prefix('+').unwrap_or(text))
}

/// `kstrtoll(text, 0)`.
pub(super) fn signed(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(text) => 0i64.checked_sub_unsigned(magnitude(text)?),
        None => i64::try_from(unsigned(text)?).ok(),
    }
}

/// `kstrtoul(text, 10)`, of digits only.
pub(super) fn decimal(text: &str) -> Option<u64> {
    digits(text, 10)
}

/// The number at the start of `text`, and the rest, as `simple_strtoul` does; none if there is no digit.
pub(super) fn leading(text: &str) -> Option<(u64, &str)> {
    let prefix = if is_hex(text) { 2 } else { 0 };
    let is_digit = |b: &u8| if prefix == 2 { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
    let count = text.bytes().skip(prefix).take_while(is_digit).count();
    let (number, rest) = text.split_at_checked(prefix + count)?;
    Some((magnitude(number)?, rest))
}

fn magnitude(text: &str) -> Option<u64> {
    if is_hex(text) { digits(text.get(2..)?, 16) } else { digits(text, if text.starts_with('0') { 8 } else { 10 }) }
}

fn is_hex(text: &str) -> bool {
    matches!(text.as_bytes(), [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit())
}

fn digits(text: &str, radix: u32) -> Option<u64> {
    // `from_str_radix` would take a sign.
    text.chars().all(|c| c.is_digit(radix)).then(|| u64::from_str_radix(text, radix).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_radix_is_read_from_the_prefix() {
        assert_eq!(unsigned("10"), Some(10));
        assert_eq!(unsigned("0x1F"), Some(31));
        assert_eq!(unsigned("010"), Some(8));
        assert_eq!(unsigned("0"), Some(0));
        assert_eq!(unsigned("+5"), Some(5));
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in ["", "+", "-1", "0x", "08", "1a", "++1", "18446744073709551616", " 1", "0x-1"] {
            assert_eq!(unsigned(text), None, "{text:?}");
        }
    }

    #[test]
    fn signed_numbers_have_the_range_of_a_long() {
        assert_eq!(signed("-0x8000000000000000"), Some(i64::MIN));
        assert_eq!(signed("0x7fffffffffffffff"), Some(i64::MAX));
        assert_eq!(signed("0x8000000000000000"), None);
        assert_eq!(signed("-+1"), None);
        assert_eq!(signed("-010"), Some(-8));
    }

    #[test]
    fn a_leading_number_ends_at_the_first_other_character() {
        assert_eq!(leading("10@2"), Some((10, "@2")));
        assert_eq!(leading("0x1g"), Some((1, "g")));
        assert_eq!(leading("0/8"), Some((0, "/8")));
        assert_eq!(leading("@"), None);
    }
}
