//! The header by which a trace goes on from one program to the next: `traceparent` of W3C Trace Context.

/// Length of the header in the version that is written, 00.
const LENGTH: usize = 55;
/// The bit of the flags that says that the caller records its part.
const SAMPLED: u8 = 1;

/// Who has called, as far as traces go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace, never zero.
    pub trace_id: [u64; 2],
    /// The caller's span, never zero.
    pub span_id: u64,
    /// Whether the caller records its part.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads the header's value; none when it is not one. Of later versions the part that this one knows is read.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let version = hex(&known[..2])?;
        let fine = if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
        if !fine || version == 0xff || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        let trace_id = [hex(&known[3..19])?, hex(&known[19..35])?];
        let (span_id, flags) = (hex(&known[36..52])?, hex(&known[53..])?);
        let sampled = flags as u8 & SAMPLED != 0;
        (trace_id != [0, 0] && span_id != 0).then_some(Self { trace_id, span_id, sampled })
    }

    /// The header's value.
    pub fn to_value(self) -> String {
        let [high, low] = self.trace_id;
        format!("00-{high:016x}{low:016x}-{:016x}-{:02x}", self.span_id, u8::from(self.sampled))
    }
}

/// A number in lower-case hexadecimal digits, as the header must have them.
fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number: u64, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_read() {
        let parent = TraceParent::parse(VALUE.as_bytes()).unwrap();
        assert_eq!(parent.trace_id, [0x4bf9_2f35_77b3_4da6, 0xa3ce_929d_0e0e_4736]);
        assert_eq!((parent.span_id, parent.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.to_value(), VALUE);
        assert!(!TraceParent::parse(VALUE.replace("-01", "-00").as_bytes()).unwrap().sampled);
        assert!(TraceParent::parse(VALUE.replace("-01", "-ff").as_bytes()).unwrap().sampled);
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let later = VALUE.replacen("00", "01", 1);
        assert!(TraceParent::parse(later.as_bytes()).is_some());
        assert!(TraceParent::parse(format!("{later}-more").as_bytes()).is_some());
        assert!(TraceParent::parse(format!("{later}more").as_bytes()).is_none());
    }

    #[test]
    fn what_is_no_parent_is_none() {
        let zero_trace = VALUE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = VALUE.replace("00f067aa0ba902b7", &"0".repeat(16));
        let forbidden = VALUE.replacen("00", "ff", 1);
        let (upper, long) = (VALUE.to_uppercase(), format!("{VALUE}-00"));
        for value in ["", "00-1-2-01", &VALUE[..54], &zero_trace, &zero_span, &forbidden, &upper, &long] {
            assert_eq!(TraceParent::parse(value.as_bytes()), None, "{value}");
        }
    }
}
