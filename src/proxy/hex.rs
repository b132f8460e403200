//! Numbers as hexadecimal digits, for the ids of every request: eight digits at a time instead of one.

/// Sixteen digits, lower case.
pub(super) fn digits(number: u64) -> [u8; 16] {
    let mut text = [0; 16];
    text[..8].copy_from_slice(&half((number >> 32) as u32));
    text[8..].copy_from_slice(&half(number as u32));
    text
}

fn half(number: u32) -> [u8; 8] {
    // Each half byte moves into a byte of its own.
    let n = u64::from(number);
    let n = (n | n << 16) & 0x0000_ffff_0000_ffff;
    let n = (n | n << 8) & 0x00ff_00ff_00ff_00ff;
    let n = (n | n << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in the bytes that are 10 or more, whose letters come 39 places after the digits.
    let letters = (n + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (n + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digits_are_those_of_the_standard_library(number: u64, shift in 0u32..64) {
            for number in [number, number >> shift, u64::MAX << shift] {
                let text = format!("{number:016x}");
                prop_assert_eq!(&digits(number)[..], text.as_bytes());
            }
        }
    }
}
