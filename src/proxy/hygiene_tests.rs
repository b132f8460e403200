//! What reaches the other side and what does not.

use super::*;
use proptest::prelude::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    map
}

fn removed(lines: &[(&str, &str)], trusted: bool) -> Vec<String> {
    let distrusted = [HeaderName::from_static("x-tenant-id")];
    let names = unwanted_of_request(&map(lines), trusted, &distrusted, |name| name == "x-user-id");
    let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

#[test]
fn a_strangers_claims_are_removed_and_a_trusted_proxys_stay() {
    let claims = [
        ("accept", "*/*"),
        ("cf-connecting-ip", "1.1.1.1"),
        ("true-client-ip", "1.1.1.1"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/admin"),
        ("x-original-url", "/admin"),
        ("x-real-ip", "1.1.1.1"),
        ("x-switchback-tenant", "acme"),
        ("x-switchback-whatever", "1"),
        ("x-tenant-id", "acme"),
        ("x-user-id", "u"),
    ];
    let stranger = [
        "cf-connecting-ip",
        "true-client-ip",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-original-url",
        "x-real-ip",
        "x-switchback-tenant",
        "x-switchback-whatever",
        "x-tenant-id",
    ];
    assert_eq!(removed(&claims, false), stranger);
    assert_eq!(removed(&claims, true), ["x-switchback-tenant", "x-switchback-whatever"]);
}

#[test]
fn underscores_that_imitate_are_removed_and_others_stay() {
    for name in [
        "content_length",
        "transfer_encoding",
        "Content_Length",
        "host",
        "x_forwarded_for",
        "x_switchback_tenant",
        "x_real_ip",
        "x-forwarded_for",
        "x_switchback-bypass",
        "authorization_",
        "x_user_id",
        "cookie",
        "proxy_connection",
        "x_request_id",
    ] {
        let expected = name.contains('_') && name != "authorization_";
        assert_eq!(!removed(&[(name, "1")], true).is_empty(), expected, "{name}");
    }
    assert_eq!(removed(&[("x_role", "admin"), ("my_app", "1")], false), [""; 0], "nobody believes it");
    assert_eq!(removed(&[("x_role", "admin"), ("x-role", "user")], false), ["x_role"], "somebody has sent the other");
}

#[test]
fn what_belongs_to_the_clients_connection_is_removed() {
    let hops = [("keep-alive", "5"), ("proxy", "http://evil"), ("proxy-authorization", "x"), ("proxy-connection", "x")];
    assert_eq!(removed(&hops, true), ["keep-alive", "proxy", "proxy-authorization", "proxy-connection"]);
}

fn answer(status: u16, version: Version, lines: &[(&str, &str)]) -> ResponseHeader {
    let mut answer = ResponseHeader::build(status, None).unwrap();
    answer.set_version(version);
    for (name, value) in lines {
        answer.append_header((*name).to_owned(), *value).unwrap();
    }
    answer
}

fn cleaned(status: u16, lines: &[(&str, &str)]) -> Result<Vec<(String, String)>, &'static str> {
    let mut answer = answer(status, Version::HTTP_11, lines);
    clean_answer(&mut answer)?;
    let text = |v: &HeaderValue| v.to_str().unwrap().to_owned();
    let mut left: Vec<_> = answer.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect();
    left.sort();
    Ok(left)
}

fn pair(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn what_belongs_to_the_endpoints_connection_is_removed() {
    let hops = [
        ("connection", "x-secret, close"),
        ("connection", "keep-alive, content-type"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("proxy-authenticate", "Basic"),
        ("te", "gzip"),
        ("trailer", "x"),
        ("upgrade", "h2c"),
        ("x-switchback-tenant", "acme"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(cleaned(200, &hops), Ok(pair("content-type", "text/plain")));
    let switch =
        [("connection", "Upgrade, x-secret"), ("upgrade", "websocket"), ("x-secret", "1"), ("content-length", "0")];
    let left = cleaned(101, &switch).unwrap();
    assert_eq!(left.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["connection", "upgrade"]);
    assert_eq!(cleaned(426, &[("upgrade", "h2c"), ("connection", "close")]), Ok(pair("upgrade", "h2c")));
}

#[test]
fn an_answer_ends_in_one_place() {
    let length = |values: &[&str]| cleaned(200, &values.iter().map(|v| ("content-length", *v)).collect::<Vec<_>>());
    assert_eq!(length(&["5"]), Ok(pair("content-length", "5")));
    assert_eq!(length(&["0"]), Ok(pair("content-length", "0")));
    for same in [&["5", "5"][..], &["5, 5"], &["05"], &["5 ", "5"], &["5,05", "5"]] {
        assert_eq!(length(same), Ok(pair("content-length", "5")), "{same:?}");
    }
    for wrong in
        [&["5", "6"][..], &["5, 6"], &["+5"], &["-5"], &["0x5"], &[""], &["5,"], &["5 5"], &["99999999999999999999"]]
    {
        assert!(length(wrong).is_err(), "{wrong:?}");
    }
    let coding = |values: &[&str]| cleaned(200, &values.iter().map(|v| ("transfer-encoding", *v)).collect::<Vec<_>>());
    for chunked in ["chunked", "Chunked", " chunked"] {
        assert_eq!(coding(&[chunked]), Ok(pair("transfer-encoding", "chunked")), "{chunked}");
    }
    assert_eq!(coding(&["identity"]), Ok(Vec::new()));
    for wrong in [
        &["gzip"][..],
        &["gzip, chunked"],
        &["chunked", "chunked"],
        &["chunked, chunked"],
        &["xchunked"],
        &[""],
        &["chunked;a"],
        &["chunked", "identity"],
    ] {
        assert!(coding(wrong).is_err(), "{wrong:?}");
    }
    assert!(cleaned(200, &[("transfer-encoding", "chunked"), ("content-length", "5")]).is_err());
    assert!(clean_answer(&mut answer(200, Version::HTTP_10, &[("transfer-encoding", "chunked")])).is_err());
    assert_eq!(cleaned(204, &[("content-length", "5"), ("transfer-encoding", "identity")]), Ok(Vec::new()));
    assert_eq!(cleaned(204, &[("transfer-encoding", "chunked")]), Ok(Vec::new()));
    assert_eq!(cleaned(304, &[("content-length", "5")]), Ok(pair("content-length", "5")));
}

proptest! {
    /// Whatever an endpoint says, clients get at most one length and one coding, never both, each written in one way.
    #[test]
    fn no_answer_is_ambiguous(status in 100u16..600, lines in proptest::collection::vec((0usize..4, "[0-9, +a-z]{0,12}|chunked|identity|[0-9]{1,3}"), 0..5)) {
        const FIELDS: [&str; 4] = ["content-length", "transfer-encoding", "connection", "x-other"];
        let lines: Vec<_> = lines.iter().map(|(i, value)| (FIELDS[*i], value.as_str())).collect();
        if let Ok(left) = cleaned(status, &lines) {
            let of = |name: &str| left.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
            let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
            prop_assert!(lengths.len() + codings.len() <= 1, "{left:?}");
            prop_assert!(codings.iter().all(|c| c == "chunked"));
            prop_assert!(lengths.iter().all(|l| l.parse::<u64>().unwrap().to_string() == *l));
            prop_assert!(status == 101 || of("connection").is_empty());
        }
    }
}
