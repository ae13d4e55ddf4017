//! The `traceparent` header: which span of the caller a call belongs to (W3C Trace Context section 3.2).

use http::HeaderName;

/// The name of the header.
pub static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a well-formed header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceParent<'h> {
    /// 32 hex digits in lower case, not all zero.
    pub trace_id: &'h str,
    /// The span of the caller: 16 hex digits in lower case, not all zero.
    pub span_id: &'h str,
    /// Whether the caller may have recorded it.
    pub is_sampled: bool,
}

impl<'h> TraceParent<'h> {
    /// Reads `version-trace_id-parent_id-flags`; later versions may append to it. `None` if it is not well-formed, and is to be treated
    /// as if it were not there.
    #[must_use]
    pub fn read(header: &'h str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace_id, span_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_set = |id: &str| id.bytes().any(|byte| byte != b'0');
        let fits = is_hex(version, 2) && is_hex(trace_id, 32) && is_hex(span_id, 16) && is_hex(flags, 2);
        // Version ff and ids of zeros are invalid by definition.
        let ends = version != "00" || parts.next().is_none();
        let is_valid = fits && ends && version != "ff" && is_set(trace_id) && is_set(span_id);
        let is_sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & SAMPLED != 0);
        is_valid.then_some(Self { trace_id, span_id, is_sampled })
    }
}

const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_header_counts() {
        #[track_caller]
        fn check(header: &str, expected: Option<bool>) {
            let expected = expected.map(|is_sampled| TraceParent {
                trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
                span_id: "00f067aa0ba902b7",
                is_sampled,
            });
            assert_eq!(TraceParent::read(header), expected, "{header}");
        }
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe", Some(false));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", Some(true));
        check(
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like",
            Some(true),
        );
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None);
        check("", None);
    }
}
