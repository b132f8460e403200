//! Endpoints where none may be: what is written in every way that ends at the proxy's own machine or its cloud.

use super::*;

const PATH: &str = "/v1/services/accounting/versions/3.0.0";

/// Written as addresses: loopback, link-local, metadata, unspecified, multicast, broadcast, documentation, reserved, and
/// the forms of IPv6 that lead there.
const ADDRESSES: [&str; 44] = [
    "127.0.0.1:80",
    "127.0.0.1:9900",
    "127.1.2.3:80",
    "127.255.255.255:80",
    "0.0.0.0:80",
    "0.0.0.1:80",
    "169.254.169.254:80",
    "169.254.170.2:80",
    "169.254.0.1:22",
    "100.100.100.200:80",
    "168.63.129.16:80",
    "192.0.0.192:80",
    "224.0.0.1:80",
    "239.255.255.250:1900",
    "255.255.255.255:80",
    "240.0.0.1:80",
    "192.0.2.1:80",
    "198.51.100.1:80",
    "203.0.113.1:80",
    "198.18.0.1:80",
    "192.88.99.1:80",
    "[::]:80",
    "[::1]:80",
    "[0:0:0:0:0:0:0:1]:80",
    "[0000:0000:0000:0000:0000:0000:0000:0001]:80",
    "[fe80::1]:80",
    "[fe80::1%1]:80",
    "[febf::1]:80",
    "[fec0::1]:80",
    "[ff02::1]:80",
    "[fd00:ec2::254]:80",
    "[fd20:ce::254]:80",
    "[2001:db8::1]:80",
    "[::ffff:127.0.0.1]:80",
    "[::ffff:7f00:1]:80",
    "[::ffff:169.254.169.254]:80",
    "[::127.0.0.1]:80",
    "[::ffff:0:127.0.0.1]:80",
    "[64:ff9b::127.0.0.1]:80",
    "[64:ff9b::a9fe:a9fe]:80",
    "[64:ff9b:1::a9fe:a9fe]:80",
    "[2002:7f00:1::]:80",
    "[2002:a9fe:a9fe::1]:80",
    "[2001:0:808:808:0:0:80ff:fffe]:80",
];

/// Written as names.
const NAMES: [&str; 33] = [
    "localhost:80",
    "LOCALHOST:80",
    "api.localhost:80",
    "a.b.LocalHost:80",
    "{tenant}.localhost:80",
    "127.0.0.{tenant}:80",
    "{tenant}.0.0.1:80",
    "localhost.:80",
    "127.0.0.1.:80",
    "2130706433:80",
    "017700000001:80",
    "0177.0.0.1:80",
    "0x7f000001:80",
    "0X7F000001:80",
    "0x7f.0.0.1:80",
    "0x7f.1:80",
    "127.1:80",
    "127.0.1:80",
    "0:80",
    "0x0:80",
    "0xa9fea9fe:80",
    "2852039166:80",
    "169.254.43518:80",
    "0xA9.0xFE.0xA9.0xFE:80",
    "user@127.0.0.1:80",
    "user:pass@127.0.0.1:80",
    "http://127.0.0.1:80",
    "127.0.0.1",
    "127.0.0.1:0",
    "127.0.0.1:65536",
    "127.0.0.1:80/",
    "127.0.0.1:80#a",
    "①②⑦.0.0.1:80",
];

#[tokio::test]
async fn endpoints_on_this_machine_and_where_clouds_keep_credentials_are_refused() {
    let api = Api::new().await;
    let before = api.control.view().state.revision;
    for endpoint in ADDRESSES.into_iter().chain(NAMES) {
        let answer = api.put(PATH, json!({ "endpoints": ["10.0.0.1:80", endpoint] })).await;
        assert_eq!(answer.status, 422, "{endpoint}: {answer:?}");
        assert_eq!(answer.body["errors"][0]["field"], "endpoints[1]", "{endpoint}");
        assert!(answer.detail().contains("allowed"), "{endpoint}: {answer:?}");
    }
    let loopback = api.put(PATH, json!({ "endpoints": ["127.0.0.1:80"] })).await;
    for part in ["127.0.0.1 is a loopback address", "admin.endpoint_networks", "which is nothing"] {
        assert!(loopback.detail().contains(part), "{loopback:?}");
    }
    assert_eq!(api.control.view().state.revision, before, "nothing was registered");
    // A dry run says the same.
    assert_eq!(api.put(&format!("{PATH}?dry_run=true"), json!({ "endpoints": ["[::1]:80"] })).await.status, 422);
}

#[tokio::test]
async fn private_and_public_networks_are_open_and_so_is_what_is_listed() {
    let api = Api::new().await;
    for endpoint in ["10.1.2.3:80", "172.20.0.1:80", "192.168.0.1:80", "100.64.0.1:80", "[fd12::1]:80", "9.9.9.9:443"] {
        assert_eq!(api.put(PATH, json!({ "endpoints": [endpoint] })).await.status, 200, "{endpoint}");
    }
    let listed = format!("[admin]\nendpoint_networks = [\"127.0.0.0/8\", \"::1\"]\n{FILE}");
    *api.file.lock().unwrap() = listed;
    assert_eq!(api.post("/v1/reload", Value::Null).await.status, 200);
    for endpoint in ["127.0.0.1:80", "[::ffff:127.0.0.1]:80", "[::1]:80", "localhost:80", "{tenant}.localhost:80"] {
        assert_eq!(api.put(PATH, json!({ "endpoints": [endpoint] })).await.status, 200, "{endpoint}");
    }
    let metadata = api.put(PATH, json!({ "endpoints": ["169.254.169.254:80"] })).await;
    assert!(metadata.status == 422 && metadata.detail().contains("which is 127.0.0.0/8, ::1/128"), "{metadata:?}");
}
