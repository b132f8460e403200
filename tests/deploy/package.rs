//! The Debian package: built of the program under test, judged by Debian's own linter, unpacked and tried.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;

use super::{path, read};

/// The package, unpacked: what it installs in `files`, its scripts in `control`.
static UNPACKED: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let tool = std::env::var("CARGO_DEB").unwrap_or_else(|_| path("target/tools/bin/cargo-deb").display().to_string());
    let mut build = Command::new(path("deploy/debian/build"));
    build.arg(folder.path()).env("BINARY", env!("CARGO_BIN_EXE_switchback")).env("CARGO_DEB", tool);
    let built = done(&mut build);
    let package = String::from_utf8(built.stdout).unwrap();
    let package = package.trim();
    assert!(Path::new(package).is_file(), "{package}");
    std::fs::rename(package, folder.path().join("switchback.deb")).unwrap();
    for (what, to) in [("-x", "files"), ("-e", "control")] {
        let to = folder.path().join(to);
        done(Command::new("dpkg-deb").arg(what).arg(folder.path().join("switchback.deb")).arg(to));
    }
    folder
});

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; use tests/run, which installs it"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}{err}");
    output
}

fn installed(name: &str) -> std::path::PathBuf {
    UNPACKED.path().join("files").join(name)
}

#[test]
fn the_linter_of_debian_has_nothing_to_say() {
    let package = UNPACKED.path().join("switchback.deb");
    let mut lint = Command::new("lintian");
    let said = done(lint.args(["--allow-root", "--fail-on", "error,warning"]).arg(package));
    assert_eq!(String::from_utf8_lossy(&said.stdout), "");
}

#[test]
fn what_is_installed_works_together() {
    let configuration = std::fs::read_to_string(installed("etc/switchback/switchback.toml")).unwrap();
    let mut check = Command::new(installed("usr/bin/switchback"));
    done(check.arg("check").arg("--config").arg(installed("etc/switchback/switchback.toml")));
    let unit = std::fs::read_to_string(installed("usr/lib/systemd/system/switchback.service")).unwrap();
    for (key, value) in [
        ("ExecStart", "/usr/bin/switchback serve --config /etc/switchback/switchback.toml"),
        ("EnvironmentFile", "-/etc/default/switchback"),
        ("StateDirectory", "switchback"),
        ("RuntimeDirectory", "switchback"),
    ] {
        assert!(unit.lines().any(|line| line == format!("{key}={value}")), "{key}: {unit}");
    }
    assert!(configuration.contains("path = \"/var/lib/switchback/switchback.db\""), "{configuration}");
    assert!(configuration.contains("handover = \"/run/switchback/switchback.sock\""), "{configuration}");
    // What is commented out in it is no less true.
    let (process, example) = configuration.split_once("# [tenants]").unwrap();
    let example = format!("# [tenants]{example}").replace("\n# ", "\n").replace("\n#\n", "\n").replacen("# ", "", 1);
    let example = example.replace("A service in two versions.", "# A service in two versions.");
    super::check(&format!("{process}{example}"), &Default::default()).unwrap_or_else(|e| panic!("{e}\n{example}"));
    let secrets = std::fs::metadata(installed("etc/default/switchback")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&secrets.permissions()) & 0o777, 0o640);
}

#[test]
fn systemd_accepts_the_units_and_finds_them_well_confined() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    // A system of which there is as much as the units name.
    for folder in ["usr/bin", "usr/lib/systemd/system", "bin", "etc"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    done(Command::new("cp").arg("-rL").arg("/lib/systemd/system/.").arg(root.join("usr/lib/systemd/system")));
    for (from, to) in [
        (path("deploy/systemd/switchback.service"), "usr/lib/systemd/system/switchback.service"),
        (path("deploy/systemd/optional/switchback.socket"), "usr/lib/systemd/system/switchback.socket"),
        (installed("usr/bin/switchback"), "usr/bin/switchback"),
        ("/bin/true".into(), "bin/kill"),
    ] {
        std::fs::copy(from, root.join(to)).unwrap();
    }
    for unit in ["switchback.service", "switchback.socket"] {
        let mut verify = Command::new("systemd-analyze");
        let said = done(verify.args(["verify", "--man=no"]).arg(format!("--root={}", root.display())).arg(unit));
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.lines().any(|line| line.contains("switchback")), "{said}");
    }
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--no-pager", "--offline=true", "--threshold=20"]);
    done(security.arg(format!("--root={}", root.display())).arg("switchback.service"));
}

#[test]
fn its_scripts_are_sound_and_an_upgrade_hands_over() {
    let control = UNPACKED.path().join("control");
    for script in ["postinst", "prerm", "postrm"] {
        done(Command::new("shellcheck").arg(control.join(script)));
    }
    let postinst = std::fs::read_to_string(control.join("postinst")).unwrap();
    assert!(!postinst.contains("switchback.socket"), "nobody wants its sockets unasked");
    assert!(!postinst.contains("restart"), "{postinst}");
    assert!(postinst.contains("--signal=QUIT switchback.service"), "{postinst}");
    let conffiles = std::fs::read_to_string(control.join("conffiles")).unwrap();
    assert_eq!(conffiles, "/etc/switchback/switchback.toml\n/etc/default/switchback\n");
}

#[test]
fn the_package_has_the_version_of_the_program() {
    let changelog = read("deploy/debian/changelog");
    assert!(changelog.starts_with(&format!("switchback ({}-1) ", env!("CARGO_PKG_VERSION"))), "{changelog}");
}
