//! The name of a request's route when the operator named none: method and path with what looks like data taken out.
//!
//! `GET /v1/orders/4711/items` and `GET /v1/orders/4712/items` are both `GET /v1/orders/{id}/items`. What is counted by
//! such a name must not grow with what clients send, so the name is bounded in depth and length, segments that are more
//! likely data than words become `{id}`, and when in doubt a segment is data.

use http::Method;

/// Segments that a name shows; whatever follows is `*`.
const MAX_SEGMENTS: usize = 6;
/// The longest segment in bytes that may be a word.
const MAX_WORD: usize = 32;
/// The longest method that has a name of its own.
const MAX_METHOD: usize = 7;
/// Method and space, each segment with its slash, and `/*`.
const MAX_LENGTH: usize = MAX_METHOD + 1 + MAX_SEGMENTS * (MAX_WORD + 1) + 2;

const ID: &[u8] = b"{id}";
const TENANT: &[u8] = b"{tenant}";

/// The name of a route in a few bytes of the stack.
pub struct RouteName {
    text: [u8; MAX_LENGTH],
    len: usize,
}

impl RouteName {
    /// The longest name in bytes.
    pub const MAX_LENGTH: usize = MAX_LENGTH;

    /// Makes the name of a request's route. The path has no query; a segment that is the tenant's name becomes `{tenant}`.
    pub fn new(method: &Method, path: &str, tenant: Option<&str>) -> Self {
        let mut name = Self { text: [0; MAX_LENGTH], len: 0 };
        name.push(method_name(method).as_bytes());
        name.push(b" ");
        // Slashes that mean nothing would make several routes of one.
        let mut segments = path.as_bytes().split(|b| *b == b'/').filter(|s| !s.is_empty());
        for segment in segments.by_ref().take(MAX_SEGMENTS) {
            name.push(b"/");
            name.push(shown(segment, tenant));
        }
        if segments.next().is_some() {
            name.push(b"/*");
        } else if name.text[name.len - 1] == b' ' {
            name.push(b"/");
        }
        name
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Nothing but ASCII was put in.
        std::str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(room) = self.text.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
        }
    }
}

/// Clients can make up methods, so only those that everyone knows have a name.
fn method_name(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "TRACE" | "CONNECT") => known,
        _ => "_OTHER",
    }
}

fn shown<'s>(segment: &'s [u8], tenant: Option<&str>) -> &'s [u8] {
    match segment {
        ID => ID,
        TENANT => TENANT,
        _ if tenant.is_some_and(|t| t.as_bytes() == segment) => TENANT,
        _ if is_word(segment) => segment,
        _ => ID,
    }
}

/// What is known about a run of letters and digits.
#[derive(Default)]
struct Run {
    len: usize,
    digits: usize,
    others_than_hex: usize,
    /// How often a digit follows a letter or the reverse.
    changes: usize,
    after_digit: bool,
}

impl Run {
    fn add(&mut self, byte: u8) {
        let digit = byte.is_ascii_digit();
        self.changes += usize::from(self.len > 0 && digit != self.after_digit);
        self.digits += usize::from(digit);
        self.others_than_hex += usize::from(!byte.is_ascii_hexdigit());
        self.after_digit = digit;
        self.len += 1;
    }

    /// Words may have a digit or two (`oauth2`, `base64`, `h2o`); numbers, hashes, UUIDs and tokens have more, or mixed.
    fn is_data(&self) -> bool {
        let (hex, digits) = (self.others_than_hex == 0, self.digits);
        match digits {
            0 => hex && self.len >= 16,
            _ => digits == self.len || digits >= 3 || self.changes >= 3 || self.len >= 20 || hex && self.len >= 8,
        }
    }
}

fn is_word(segment: &[u8]) -> bool {
    if segment.len() > MAX_WORD {
        return false;
    }
    if is_version(segment) {
        return true;
    }
    let mut run = Run::default();
    for byte in segment {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => run.add(*byte),
            b'-' | b'_' | b'.' | b'~' | b':' => {
                if run.is_data() {
                    return false;
                }
                run = Run::default();
            }
            // Percent-encoded text, lists, matrix parameters, mail addresses: somebody's data.
            _ => return false,
        }
    }
    !run.is_data()
}

/// `v1`, `v2.1`, `v1beta2`: the number tells interfaces apart.
fn is_version(segment: &[u8]) -> bool {
    let Some(rest) = segment.strip_prefix(b"v").or_else(|| segment.strip_prefix(b"V")) else { return false };
    let Some(mut rest) = number(rest) else { return false };
    for _ in 0..2 {
        rest = rest.strip_prefix(b".").and_then(number).unwrap_or(rest);
    }
    let stage = [&b"alpha"[..], b"beta", b"rc"].iter().find_map(|stage| rest.strip_prefix(*stage));
    let rest = stage.map_or(rest, |rest| number(rest).unwrap_or(rest));
    rest.is_empty()
}

/// What follows a number of one to three digits.
fn number(text: &[u8]) -> Option<&[u8]> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    (1..=3).contains(&digits).then(|| &text[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(path: &str) -> String {
        RouteName::new(&Method::GET, path, None).as_str().to_owned()
    }

    #[test]
    fn words_stay_and_data_goes() {
        for word in [
            "orders",
            "v1",
            "v2.1",
            "V3",
            "v1beta1",
            "oauth2",
            "base64",
            "ipv4",
            "api-v2",
            "wp-login.php",
            ".well-known",
            "_search",
            "orders:batchGet",
            "customer_payment_methods",
            "getCustomerById",
            "deadbeef",
        ] {
            assert_eq!(name(&format!("/{word}/x")), format!("GET /{word}/x"));
        }
        for data in [
            "7",
            "4711",
            "-5",
            "12.5",
            "2024-01-15",
            "0b5f6c9e-3d0a-4c1e-9a67-0f1d2c3b4a59",
            "3f9a2c1b",
            "d41d8cd98f00b204e9800998ecf8427e",
            "abcdefabcdefabcd",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "cus_9s6XKzkNRiz8i3",
            "order-12345",
            "user-7",
            "user123",
            "12345.json",
            "main.3f9a2c1b.js",
            "123:cancel",
            "alice%40example.com",
            "a@example.com",
            "a,b",
            "x;v=1",
            "dGhpc2lzYXZlcnlsb25ndG9rZW4tbm90LWEtd29yZA",
            "how-to-configure-your-new-printer",
            "ünïcode",
            "{name}",
        ] {
            assert_eq!(name(&format!("/a/{data}/b")), "GET /a/{id}/b", "{data}");
        }
    }

    #[test]
    fn names_are_bounded_in_depth_and_methods() {
        assert_eq!(name("/"), "GET /");
        assert_eq!(name(""), "GET /");
        assert_eq!(name("//a///b/"), "GET /a/b");
        assert_eq!(name("/a/b/c/d/e/f"), "GET /a/b/c/d/e/f");
        assert_eq!(name("/a/b/c/d/e/f/g/h"), "GET /a/b/c/d/e/f/*");
        let made_up = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(RouteName::new(&made_up, "/pot", None).as_str(), "_OTHER /pot");
        let longest = "/averyveryverylongwordofletters-x".repeat(7);
        assert_eq!(RouteName::new(&Method::OPTIONS, &longest, None).as_str().len(), RouteName::MAX_LENGTH);
    }

    #[test]
    fn tenants_in_paths_are_no_routes_of_their_own() {
        let of = |tenant| RouteName::new(&Method::GET, "/t/acme/orders/12", Some(tenant)).as_str().to_owned();
        assert_eq!(of("acme"), "GET /t/{tenant}/orders/{id}");
        assert_eq!(of("globex"), "GET /t/acme/orders/{id}");
    }

    /// What applications put into paths to tell things apart.
    fn identifier() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<u64>().prop_map(|n| n.to_string()),
            any::<i32>().prop_map(|n| n.to_string()),
            any::<[u16; 8]>().prop_map(|w| {
                let hex: String = w.iter().map(|w| format!("{w:04x}")).collect();
                format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }),
            any::<u128>().prop_map(|n| format!("{n:032x}")),
            any::<u128>().prop_map(|n| format!("{n:032X}")),
            (1000u32..).prop_map(|n| format!("INV-{n}")),
            "[A-Za-z0-9]{33,80}",
            "[a-z]{1,8}%[0-9A-F]{2}[a-z]{1,8}",
        ]
    }

    proptest! {
        #[test]
        fn names_are_bounded_and_stay_what_they_are(path in "(/[ -~]{0,40}){0,12}|\\PC{0,80}", tenant in proptest::option::of("[!-~]{1,12}")) {
            let tenant = tenant.as_deref();
            let once = RouteName::new(&Method::DELETE, &path, tenant);
            let once = once.as_str();
            prop_assert!(once.len() <= RouteName::MAX_LENGTH && once.starts_with("DELETE /"), "{}", once);
            prop_assert!(once.is_ascii() && once.matches('/').count() <= MAX_SEGMENTS + 1, "{}", once);
            let path = once.strip_prefix("DELETE ").unwrap();
            let twice = RouteName::new(&Method::DELETE, path, tenant);
            prop_assert_eq!(twice.as_str(), once);
        }

        #[test]
        fn no_identifier_is_ever_shown(ids in proptest::collection::vec(identifier(), 1..4)) {
            let path: String = ids.iter().map(|id| format!("/things/{id}")).collect();
            let expected = format!("GET {}", "/things/{id}".repeat(ids.len()));
            prop_assert_eq!(name(&path), expected);
        }
    }
}
