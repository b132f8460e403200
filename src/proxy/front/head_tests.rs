//! Tests of the strict look at request heads.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { size: 4_096, fields: 20 };

fn look(text: &str) -> Result<Option<Head>, BadHead> {
    scan(text.as_bytes(), LIMITS)
}

fn body(fields: &str) -> Result<BodyKind, BadHead> {
    look(&format!("POST /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).map(|head| head.unwrap().body)
}

#[test]
fn a_head_is_complete_with_its_empty_line() {
    let text = "GET /a?b=c HTTP/1.1\r\nHost: a.example:8080\r\nX: y\r\n\r\n";
    let head = Head { skip: 0, length: text.len(), body: BodyKind::None };
    assert_eq!(look(text), Ok(Some(head)));
    assert_eq!(look(&format!("{text}GET /")), Ok(Some(head)), "what follows is not looked at");
    assert_eq!(look(&format!("\r\n{text}")), Ok(Some(Head { skip: 2, ..head })));
    for end in 0..text.len() {
        assert_eq!(look(&text[..end]), Ok(None), "{:?}", &text[..end]);
    }
    assert_eq!(look("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().length, 18);
    assert_eq!(look("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap().body, BodyKind::None);
}

#[test]
fn there_is_one_way_to_say_where_the_body_ends() {
    assert_eq!(body(""), Ok(BodyKind::None));
    assert_eq!(body("Content-Length: 0\r\n"), Ok(BodyKind::None));
    assert_eq!(body("content-length:7 \r\n"), Ok(BodyKind::Length(7)));
    assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Ok(BodyKind::Chunked));
    let malformed = [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 05\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n chunked\r\n",
        "X: y\r\n\tchunked\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: a\nContent-Length: 5\r\n",
        "X y: z\r\n",
        ": z\r\n",
        "X\r\n",
        "X\u{e9}: z\r\n",
        "Host: b.example\r\n",
        "Host: a.example\r\n",
    ];
    for fields in malformed {
        assert_eq!(body(fields), Err(BadHead::Malformed), "{fields:?}");
    }
    for coding in ["gzip", "xchunked", "identity", "cow"] {
        assert_eq!(body(&format!("Transfer-Encoding: {coding}\r\n")), Err(BadHead::Coding), "{coding}");
    }
    assert_eq!(body("Expect: 200-ok\r\n"), Err(BadHead::Expectation));
    assert_eq!(body("Expect: 100-Continue\r\nX: caf\u{e9}\r\n"), Ok(BodyKind::None));
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(look(old), Err(BadHead::Malformed), "HTTP/1.0 has no chunks");
}

#[test]
fn request_lines_have_one_form() {
    let line = |line: &str| look(&format!("{line}\r\nHost: a.example\r\n\r\n")).map(|head| head.is_some());
    for fine in [
        "GET / HTTP/1.1",
        "PURGE /a/../b HTTP/1.1",
        "GET http://a.example/x HTTP/1.1",
        "GET HTTPS://A.example HTTP/1.1",
        "GET http://a.example?x HTTP/1.1",
        "GET /a%00b|{}\"<>\\^` HTTP/1.1",
        "GET /caf\u{e9} HTTP/1.1",
        "M-SEARCH / HTTP/1.0",
    ] {
        assert_eq!(line(fine), Ok(true), "{fine}");
    }
    for malformed in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / x HTTP/1.1",
        "GET /a\x7f HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET a.example/ HTTP/1.1",
        "GET * HTTP/1.1",
        "GET http://b.example/ HTTP/1.1",
        "GET http://a.example:81/ HTTP/1.1",
        "GET http://u@a.example/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET ftp://a.example/ HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/1",
        "GET / HTTP /1.1",
        "G(T / HTTP/1.1",
        "GET,POST / HTTP/1.1",
        "AVERYLONGMETHODTHATNOBODYEVERUSESANYWHERE / HTTP/1.1",
    ] {
        assert_eq!(line(malformed), Err(BadHead::Malformed), "{malformed}");
    }
    assert_eq!(scan(b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", LIMITS), Err(BadHead::Malformed), "no text");
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
        assert_eq!(line(&format!("GET / {version}")), Err(BadHead::Version), "{version}");
    }
    assert_eq!(line("CONNECT a.example:443 HTTP/1.1"), Err(BadHead::Method));
}

#[test]
fn rubbish_is_not_waited_for() {
    for text in
        ["\x16\x03\x01\x02\x00", "\r\n\r\n\r\n", " GET", "\0", "GET / HTTP/1.1\nHost: a\n\n", "\n", "SSH-2.0-x\n"]
    {
        assert_eq!(look(text), Err(BadHead::Malformed), "{text:?}");
    }
}

#[test]
fn heads_have_limits() {
    let long = "a".repeat(5_000);
    assert_eq!(look(&format!("GET /{long}")), Err(BadHead::TargetTooLong));
    assert_eq!(look(&format!("GET / HTTP/1.1\r\nX: {long}")), Err(BadHead::TooLarge));
    assert_eq!(look(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")), Err(BadHead::TooLarge));
    let many = "X: y\r\n".repeat(20);
    assert_eq!(look(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), Err(BadHead::TooLarge));
}

#[test]
fn hosts_are_names_or_addresses_with_a_port() {
    for fine in ["a", "a.example", "A_b-c.example:80", "127.0.0.1:65535", "[::1]", "[fe80::1]:8080"] {
        assert!(is_authority(fine.as_bytes()), "{fine}");
    }
    for bad in [
        "",
        ":80",
        "a:",
        "a:t-Length",
        "a:99999999999999999999",
        "a:0",
        "a:65536",
        "a:http",
        "a:-1",
        "a:80:80",
        "a b",
        "a,b",
        "a/b",
        "u@a",
        "a\u{e9}",
        "[::1",
        "[::1]x",
        "[]",
        "[a]",
        "[::1]:",
        "a\"",
        "a?",
        "a#",
        "a%2e",
        "a\\b",
    ] {
        assert!(!is_authority(bad.as_bytes()), "{bad}");
    }
}

proptest! {
    /// However a head is cut, the answer is the same once it is complete, and never complete before.
    #[test]
    fn pieces_make_no_difference(text in "[A-Z]{1,5} /[ -~]{0,20} HTTP/1\\.[01]\r\n(Host: [a-z.:0-9]{1,9}\r\n)?([A-Za-z :-]{0,12}\r?\n){0,4}\r\n") {
        let whole = look(&text);
        for end in 0..text.len() {
            match look(&text[..end]) {
                Ok(None) => {}
                Ok(Some(head)) => prop_assert_eq!(whole, Ok(Some(head))),
                Err(_) => prop_assert!(whole.is_err(), "{:?}", &text[..end]),
            }
        }
    }

    #[test]
    fn nothing_panics(bytes: Vec<u8>) {
        let _any = scan(&bytes, LIMITS);
    }
}
