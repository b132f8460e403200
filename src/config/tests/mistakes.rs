//! Every kind of mistake, with its line and key.

use super::{SMALL, bad, load};

/// The one mistake of the small file with more lines of the service's table; their first line is line 7.
fn in_service(more: &str) -> String {
    one(&format!("{SMALL}{more}\n"))
}

fn one(text: &str) -> String {
    let mistakes = bad(text);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}\n{text}");
    mistakes[0].clone()
}

/// The one mistake of the small file with something else in place of a part of it.
fn replaced(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    one(&SMALL.replace(from, to))
}

fn expect(mistake: &str, begin: &str) {
    assert!(mistake.starts_with(begin), "expected {begin}\n   found {mistake}");
}

#[test]
fn all_mistakes_come_at_once_and_by_line() {
    let text = r#"
[proxy]
listne = ["127.0.0.1:8080"]
threads = "four"
drain_timeout = "30 s"
[proxy.limits]
header_size = "64KB"
connections = 0

[admin]
listen = "0.0.0.0:9900"
tokens = []

[store]
etcd = ["10.0.0.1:2379"]

[services.accounting]
match = [{ path = "accounting" }]
baseline = "3.0.0"
split = { "1.0.0" = 90, "2.0.0" = 10.001, "4" = 1 }
[services.accounting.versions."1.0.0"]
endpoints = ["127.0.0.1:7001"]
[services.accounting.versions."2.0.0"]
endpoints = [
  "127.0.0.1",
]
helth = { path = "/healthz" }
"#;
    let expected = [
        "2 proxy.listen: there is no address to listen on; at least one of listen and tls is needed",
        "3 proxy.listne: unknown key, did you mean \"listen\"?; allowed are listen, threads, tls",
        "4 proxy.threads: is text; allowed is an integer from 0 to 1024",
        "5 proxy.drain_timeout: \"30 s\" is not a duration; allowed is a duration from \"0s\" to \"1d\", in ms, s, m, h or d",
        "7 proxy.limits.header_size: \"64KB\" is not a size; allowed is a size from \"1KiB\" to \"1MiB\"",
        "8 proxy.limits.connections: 0 is out of range; allowed is an integer from 1 to",
        "11 admin.listen: 0.0.0.0:9900 is open to other machines and there are no tokens",
        "15 store.etcd[0]: \"10.0.0.1:2379\" is no http or https address of a host; allowed is an address such as",
        "18 services.accounting.match[0].path: \"accounting\" does not begin with \"/\"; allowed is a path",
        "19 services.accounting.baseline: \"3.0.0\" is no version of this service; allowed are \"1.0.0\", \"2.0.0\"",
        "20 services.accounting.split.\"2.0.0\": 10.001 has more than two decimals",
        "20 services.accounting.split.4: \"4\" is no version of this service",
        "25 services.accounting.versions.\"2.0.0\".endpoints[0]: \"127.0.0.1\" is not an endpoint; allowed is host:port",
        "27 services.accounting.versions.\"2.0.0\".helth: unknown key, did you mean \"health\"?",
    ];
    let found = bad(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        expect(found, expected);
    }
    let shown = load(text).unwrap_err().to_string();
    assert!(shown.lines().nth(1).unwrap().starts_with("/etc/sb/sb.toml:3: proxy.listne: unknown key"), "{shown}");
}

#[test]
fn syntax_has_line_and_column() {
    expect(&one("[proxy]\nlisten = [\"a\"\nthreads = 1\n"), "3 : column ");
    expect(&one("a = 'x\n"), "1 : column ");
    let twice = in_service("match = []");
    expect(&twice, "7 : column 1: the key match stands here for the second time; once is allowed");
    let more = bad(&format!("{SMALL}match = []\nretires = 1\n"));
    expect(&more[1], "8 services.a.retires: unknown key, did you mean \"retries\"?");
}

#[test]
fn an_empty_file_says_what_it_needs() {
    expect(&one(""), "1 proxy: is missing; allowed is a table with listen");
    expect(&one("[proxy]"), "1 proxy.listen: there is no address");
}

#[test]
fn wrong_types() {
    expect(&replaced("[\"127.0.0.1:8080\"]", "\"127.0.0.1:8080\""), "2 proxy.listen: is text; allowed is a list");
    expect(&in_service("retries = 1.5"), "7 services.a.retries: is a number; allowed is an integer from 0 to 5");
    expect(&in_service("salt = 7"), "7 services.a.salt: is an integer; allowed is text");
    expect(&in_service("headers = [1]"), "7 services.a.headers: is a list; allowed is a table with version");
    expect(&in_service("rescue = 1979-05-27"), "7 services.a.rescue: is a date; allowed is true or false");
    expect(
        &in_service("guard = { ceiling = true }"),
        "7 services.a.guard.ceiling: is true or false; allowed is percent",
    );
    expect(&in_service("sticky = [{ address = false }]"), "7 services.a.sticky[0].address: is false; allowed is true");
}

#[test]
fn values_out_of_range() {
    expect(&in_service("retries = 6"), "7 services.a.retries: 6 is out of range");
    expect(&in_service("guard = { ceiling = 101 }"), "7 services.a.guard.ceiling: 101 is not a percentage");
    expect(
        &in_service("guard = { patience = \"20s\" }"),
        "7 services.a.guard.patience: \"20s\" is out of range; allowed",
    );
    expect(&in_service("guard = { error_probability = 0.5 }"), "7 services.a.guard.error_probability: 0.5 is out");
    expect(&in_service("guard = { tolerance = { ratio = 0.9 } }"), "7 services.a.guard.tolerance.ratio: 0.9 is out");
    expect(
        &in_service("client_certificate = true"),
        "7 services.a.client_certificate: is true and no client can show one",
    );
    expect(&in_service("rescue = { statuses = [404] }"), "7 services.a.rescue.statuses[0]: 404 is out of range");
    expect(&in_service("rescue = { budget = 101 }"), "7 services.a.rescue.budget: 101 is not a percentage");
    expect(&in_service("rescue = { method = [] }"), "7 services.a.rescue.method: unknown key");
    expect(&in_service("skew = [\"assets\"]"), "7 services.a.skew[0]: \"assets\"");
    expect(&in_service("body_limit = -1"), "7 services.a.body_limit: -1 is out of range; allowed is a size");
    expect(&in_service("split = { 1 = 99.5 }"), "7 services.a.split: the weights add up to 99.5 %");
    let many: Vec<_> = (0..101).map(|i| format!("\"/{i}\"")).collect();
    let many = in_service(&format!("routes = [{}]", many.join(", ")));
    expect(&many, "7 services.a.routes: has 101 routes; allowed are up to 100");
    expect(&in_service("split = {}"), "7 services.a.split: no version has a weight");
    expect(&in_service("retries = 99999999999999999999"), "7 services.a.retries: 99999999999999999999 is too large");
}

#[test]
fn routes_have_a_form_and_are_different() {
    let wrong = |routes: &str| in_service(&format!("routes = [{routes}]"));
    let allowed = "allowed is a path such as \"/v1/orders/{id}\"";
    let begin = "7 services.a.routes[0]: \"get /a\" has no method in capital letters before the space; ";
    expect(&wrong("\"get /a\""), &format!("{begin}{allowed}"));
    expect(
        &wrong("\"/a{b}\""),
        "7 services.a.routes[0]: \"/a{b}\" has braces or a star that are not a segment of their",
    );
    let twice = "7 services.a.routes[1]: stands for the same requests as \"/a/{b}\"";
    expect(&wrong("\"/a/{b}\", \"/a/{c}/\""), twice);
}

#[test]
fn texts_of_a_wrong_form() {
    let rule = |rule: &str| replaced("{ path = \"/\" }", rule);
    for (bad, key) in [
        ("{ host = \"a.b:80\" }", "host"),
        ("{ host = \"*.*.b\" }", "host"),
        ("{ path = \"/a?b\" }", "path"),
        ("{ path = \"/a/../b\" }", "path"),
        ("{ header = \"a b\" }", "header"),
        ("{ method = \"get\" }", "method"),
    ] {
        expect(&rule(bad), &format!("4 services.a.match[0].{key}: "));
    }
    expect(&rule("{ header = { x-a = 1 } }"), "4 services.a.match[0].header.x-a: is an integer; allowed is visible");
    expect(&rule("{ header = { \"x a\" = \"1\" } }"), "4 services.a.match[0].header.\"x a\": the name is not a header");
    expect(&replaced("127.0.0.1:8080", "127.0.0.1"), "2 proxy.listen[0]: \"127.0.0.1\" is not an address with port");
    expect(&replaced("[services.a]", "[services.\"a b\"]"), "3 services.\"a b\": the name has the character ' '");
    expect(&in_service("salt = \"\""), "7 services.a.salt: is empty; allowed is text that is not empty");
    expect(&in_service("choose = { cookie = \"a;b\" }"), "7 services.a.choose.cookie: \"a;b\" is not a cookie name");
    expect(&replaced("[proxy]", "[proxy]\ntrusted = [\"10.0.0.0/33\"]"), "2 proxy.trusted[0]: \"10.0.0.0/33\" is");
    let identify = |source: &str| one(&format!("tenants.identify = [{source}]\n{SMALL}"));
    expect(&identify("{ host = \"a.b\" }"), "1 tenants.identify[0].host: \"a.b\" has no {tenant}");
    expect(&identify("{ path = \"/t-{tenant}\" }"), "1 tenants.identify[0].path: \"/t-{tenant}\" has {tenant} beside");
    expect(&one(&format!("tenants.groups = {{ g = [\"a b\"] }}\n{SMALL}")), "1 tenants.groups.g[0]: \"a b\" has");
}

#[test]
fn rules_between_keys_of_a_table() {
    expect(&in_service("sticky = [{}]"), "7 services.a.sticky[0]: says nothing; exactly one of header, cookie");
    expect(&in_service("sticky = [{ header = \"a\", cookie = \"b\" }]"), "7 services.a.sticky[0]: has 2 of header");
    expect(
        &in_service("sticky = [{ header = \"a\", issue = true }]"),
        "7 services.a.sticky[0].issue: means nothing here",
    );
    expect(
        &in_service("sticky = [{ header = \"a\", session_ttl = \"1h\" }]"),
        "7 services.a.sticky[0].session_ttl: means nothing here",
    );
    expect(
        &in_service("sticky = [{ header = \"a\", session = true, session_ttl = \"59s\" }]"),
        "7 services.a.sticky[0].session_ttl: \"59s\" is out of range",
    );
    expect(
        &in_service("sticky = [{ cookie = \"a\", session = true, session_cookie = \"a\" }]"),
        "7 services.a.sticky: the session's cookie \"a\" is also another cookie of this service",
    );
    expect(&in_service("sticky = [{ tenant = true }, { address = true }]"), "7 services.a.sticky: has tenant beside");
    expect(
        &in_service("choose = { secret = \"x\" }"),
        "7 services.a.choose: is without effect; at least one of header",
    );
    expect(&replaced("{ path = \"/\" }", "{}"), "4 services.a.match[0]: is without effect; at least one of host");
    expect(&replaced("[{ path = \"/\" }]", "[]"), "4 services.a.match: is empty; at least one element is needed");
    expect(&replaced("[\"127.0.0.1:7001\"]", "[]"), "6 services.a.versions.1.endpoints: is empty");
    expect(&replaced("endpoints = [\"127.0.0.1:7001\"]", ""), "6 services.a.versions.1.endpoints: is missing");
    expect(&replaced("baseline = \"1\"", ""), "3 services.a.baseline: is missing");
}

#[test]
fn checks_across_keys() {
    expect(&replaced("\"127.0.0.1:7001\"", "\"a:1\", \"A:1\""), "6 services.a.versions.1.endpoints[1]: is the same as");
    expect(
        &replaced("127.0.0.1:7001", "{tenant}.x:1"),
        "6 services.a.versions.1.endpoints[0]: has {tenant} and nothing",
    );
    let paths = "{ 1 = { endpoints = [\"a:1\"], path = \"/x\" }, 2 = { endpoints = [\"a:2\"], path = \"/x/\" } }";
    let two = SMALL.replace("{ 1 = { endpoints = [\"127.0.0.1:7001\"] } }", paths);
    expect(&one(&two), "6 services.a.versions.2.path: already selects version \"1\"");
    let twice =
        format!("{SMALL}{}", SMALL.split_once("[services.a]").unwrap().1.replace("match", "[services.b]\nmatch"));
    expect(&one(&twice), "9 services.b.match[0]: is also a rule of the service \"a\"");
    expect(&one(&format!("tenants.unknown = \"reject\"\n{SMALL}")), "1 tenants.unknown: is \"reject\" and nothing");
}

#[test]
fn listeners_are_distinct() {
    let listen = |text: &str| replaced("\"127.0.0.1:8080\"", text);
    expect(&listen("\"127.0.0.1:8080\",\n\"127.0.0.1:8080\""), "3 proxy.listen[1]: 127.0.0.1:8080 is already taken by");
    expect(&listen("\"127.0.0.1:80\", \"0.0.0.0:80\""), "2 proxy.listen[1]: 0.0.0.0:80 is already taken");
    expect(&one(&SMALL.replace("8080", "9900")), "1 admin.listen: 127.0.0.1:9900 is already taken by proxy.listen[0]");
    let tls = "[[proxy.tls]]\nlisten = \"127.0.0.1:8080\"\ncertificates = [{ cert = \"c\", key = \"k\" }]\n";
    expect(&one(&format!("{SMALL}{tls}")), "8 proxy.tls[0].listen: 127.0.0.1:8080 is already taken");
    assert!(load(&SMALL.replace("\"127.0.0.1:8080\"", "\"127.0.0.1:0\", \"127.0.0.1:0\", \"[::]:9900\"")).is_ok());
}

#[test]
fn tokens_and_secrets_are_never_shown() {
    let admin = |text: &str| bad(&format!("{SMALL}[admin]\n{text}\n"));
    let token = |name: &str, hash: &str| format!("{{ name = \"{name}\", role = \"admin\", sha256 = \"{hash}\" }}");
    let plain = admin(&format!("tokens = [{}]", token("a", "hunter2")));
    expect(&plain[0], "8 admin.tokens[0].sha256: is not the SHA-256 of a token; allowed is 64 hexadecimal digits");
    let nothing = admin(&format!("tokens = [{}]", token("a", super::super::process::SHA256_OF_NOTHING)));
    expect(&nothing[0], "8 admin.tokens[0].sha256: is the SHA-256 of nothing");
    let hash = "0".repeat(64);
    let same = admin(&format!("tokens = [{}, {}]", token("a", &hash), token("a", &hash)));
    assert_eq!(same.len(), 2, "{same:?}");
    expect(&same[0], "8 admin.tokens[1].name: is that of a token before");
    expect(&admin("listen = \"[::]:9900\"")[0], "8 admin.listen: [::]:9900 is open to other machines");
    let role = admin(&format!("tokens = [{}]", token("a", &hash).replace("\"admin\"", "\"root\"")));
    expect(&role[0], "8 admin.tokens[0].role: \"root\" is not known; allowed is \"viewer\", \"operator\", \"admin\"");
    let short = bad(&SMALL.replace("[proxy]", "[proxy]\ncookie_secret = \"hunter2\""));
    expect(&short[0], "2 proxy.cookie_secret: has 7 characters; allowed is at least 32 characters");
    let one_short = bad(&SMALL.replace("[proxy]", "[proxy]\ncookie_secret = [\"hunter2\"]"));
    expect(&one_short[0], "2 proxy.cookie_secret[0]: has 7 characters; allowed is at least 32 characters");
    assert!([plain, short].concat().iter().all(|m| !m.contains("hunter2")));
}

#[test]
fn keys_of_tokens() {
    let key = |key: &str| bad(&format!("tenants.identify = [{{ jwt = {{ keys = [{key}] }} }}]\n{SMALL}"))[0].clone();
    let path = "1 tenants.identify[0].jwt.keys[0]";
    expect(
        &key("{ algorithm = \"RS256\", file = \"away.pem\" }"),
        &format!("{path}.file: the file /etc/sb/away.pem cannot"),
    );
    expect(
        &key("{ algorithm = \"RS256\", file = \"empty.pem\" }"),
        &format!("{path}.file: holds no public key for RS256"),
    );
    expect(
        &key("{ algorithm = \"ES256\", file = \"id.pem\" }"),
        &format!("{path}.file: holds no public key for ES256"),
    );
    expect(&key("{ algorithm = \"HS256\", file = \"id.pem\" }"), &format!("{path}.file: does not go with HS256"));
    expect(&key("{ algorithm = \"RS256\", secret = \"x\" }"), &format!("{path}.secret: does not go with RS256"));
    expect(&key("{ algorithm = \"none\", secret = \"x\" }"), &format!("{path}.algorithm: \"none\" is not known"));
    expect(&key("{ algorithm = \"HS256\" }"), &format!("{path}: says nothing; exactly one of file, secret"));
    expect(&key(""), "1 tenants.identify[0].jwt.keys: is empty");
}

#[test]
fn a_missing_variable_is_a_mistake() {
    expect(&in_service("salt = \"${NO_SUCH}\""), "7 services.a.salt: the environment variable NO_SUCH is not set");
    expect(&in_service("salt = \"${1}\""), "7 services.a.salt: \"${\" begins no variable");
}

#[test]
fn the_store_is_in_one_place_and_etcd_is_reached_one_way() {
    let store = |keys: &str| one(&format!("{SMALL}[store]\n{keys}\n"));
    expect(
        &store("path = \"a.db\"\netcd = [\"http://e:2379\"]"),
        "9 store.etcd: stands beside path, and the state is in one place; allowed is one of the two keys",
    );
    expect(
        &store("etcd = [\"http://e:1\", \"https://f:1\"]\nca = \"etcd-ca.pem\""),
        "8 store.etcd: has both http and https addresses; allowed are addresses of one kind",
    );
    expect(&store("etcd = [\"https://e:1\"]"), "7 store.ca: is missing; https addresses in etcd need a PEM file");
    expect(
        &store("etcd = [\"https://e:1\"]\nca = \"empty.pem\""),
        "9 store.ca: names a file that is not PEM; allowed is a PEM file",
    );
    expect(
        &store("etcd = [\"http://e:1\"]\nca = \"etcd-ca.pem\""),
        "9 store.ca: says nothing with http addresses; allowed is it with https addresses in etcd",
    );
    expect(
        &store("etcd = [\"http://e:1\"]\nusername = \"a\""),
        "9 store.username: means nothing here; allowed is it beside the key password",
    );
    let short = store("secret = \"hunter2\"");
    expect(&short, "8 store.secret: has 7 characters; allowed is at least 32 characters");
    assert!(!short.to_string().contains("hunter2"));
    expect(&store("prefix = \"/a\""), "8 store.prefix: means nothing here; allowed is it beside the key etcd");
    for wrong in ["e:2379", "http://", "ftp://e", "http://u:p@e", "http://e/x"] {
        let found = store(&format!("etcd = [\"{wrong}\"]"));
        expect(&found, &format!("8 store.etcd[0]: \"{wrong}\" is no http or https address of a host; allowed is"));
    }
    expect(&store("etcd = [\"http://e\"]\nprefix = \"a\""), "9 store.prefix: \"a\" does not begin with \"/\"");
    let both = bad(&format!("{SMALL}[store]\nusername = \"a\"\npassword = \"hush\"\n"));
    expect(&both[0], "8 store.username: means nothing here; allowed is it beside the key etcd");
    expect(&both[1], "9 store.password: means nothing here; allowed is it beside the key etcd");
    assert!(!both[1].to_string().contains("hush"));
}
