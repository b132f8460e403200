//! What image, compose and chart rely on: the configuration is a link in a folder where the process may write, to a file in
//! one where it may not and that is swapped as a whole.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use super::etcd_server::Etcd;
use super::{Proxy, free_port, until};

/// Puts a file there in the way of Kubernetes: a folder of its own, and one link that is swapped.
fn mount(folder: &Path, content: &str, text: &str) {
    let real = folder.join(content);
    std::fs::create_dir_all(&real).unwrap();
    std::fs::write(real.join("switchback.toml"), text).unwrap();
    symlink(content, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_mounted_configuration_is_read_again_and_the_copy_lies_beside_the_link() {
    let etcd = Etcd::start();
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let (mounted, data) = (folder.path().join("etc"), folder.path().join("lib"));
    std::fs::create_dir_all(&mounted).unwrap();
    std::fs::create_dir_all(&data).unwrap();
    let process = format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\nwatch = true\nhandover = \"off\"\n\
         [admin]\nlisten = \"127.0.0.1:{port}\"\n[store]\netcd = [\"{}\"]\n",
        etcd.url("http")
    );
    let service = |name: &str| {
        format!(
            "[services.{name}]\nmatch = [{{ path = \"/{name}\" }}]\nbaseline = \"1\"\n\
             [services.{name}.versions.1]\nendpoints = [\"127.0.0.1:1\"]\n"
        )
    };
    let first = process + &service("one");
    mount(&mounted, "..first", &first);
    symlink("..data/switchback.toml", mounted.join("switchback.toml")).unwrap();
    symlink(mounted.join("switchback.toml"), data.join("switchback.toml")).unwrap();

    let _proxy = Proxy::start(&data.join("switchback.toml"));
    let services = || {
        let answer = ureq::get(format!("http://127.0.0.1:{port}/v1/services")).call();
        answer.ok().map(|mut a| a.body_mut().read_json::<Value>().unwrap().to_string())
    };
    let known = |name: &str| services().is_some_and(|text| text.contains(&format!("\"{name}\"")));
    until("the first configuration", || known("one"));
    until("the last good copy", || files(&data).contains(&"switchback.db.last-good".to_owned()));
    assert!(!known("two"));

    mount(&mounted, "..second", &(first + &service("two")));
    until("the second configuration", || known("two"));
    assert_eq!(files(&mounted), ["..data", "..first", "..second", "switchback.toml"], "nothing was written there");
}
