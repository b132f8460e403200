//! Manual pages: one for each command, made from the same texts as the help.

use std::fs;
use std::path::Path;

use clap_mangen::Man;
use jiff::Timestamp;
use serde_json::Value;

use super::error::CliError;
use super::examples::of;
use super::text::Fields;

/// What only the first page has.
const ABOUT_ALL: &str = r#".SH ENVIRONMENT
.TP
\fBSWITCHBACK_ADMIN\fR
Address of the admin API, when \fB\-\-admin\fR is not given.
.TP
\fBSWITCHBACK_TOKEN\fR
Token for the admin API, when neither \fB\-\-token\fR nor
\fB\-\-token\-file\fR is given.
.TP
\fBSWITCHBACK_CONFIG\fR
The configuration, when \fB\-\-config\fR is not given.
.TP
\fBNO_COLOR\fR, \fBCLICOLOR_FORCE\fR, \fBTERM\fR
Colours are used on terminals; not when \fBNO_COLOR\fR is set or
\fBTERM\fR is \fBdumb\fR; always when \fBCLICOLOR_FORCE\fR is set.
.SH "EXIT STATUS"
0 when it is done, 1 when it was refused or failed, 2 for wrong usage or
configuration.
"#;

/// Writes `switchback.1`, `switchback-split.1`, `switchback-split-set.1` and so on, and tells their names.
///
/// # Errors
/// When the folder or a page cannot be written.
pub(super) fn write_pages(command: clap::Command, folder: &Path, version: &str) -> Result<Vec<String>, CliError> {
    fs::create_dir_all(folder).map_err(|source| CliError::File { file: folder.to_owned(), source })?;
    // `help` is the page itself.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    write_page(&command, folder, version, &mut pages)?;
    Ok(pages)
}

fn write_page(command: &clap::Command, folder: &Path, version: &str, pages: &mut Vec<String>) -> Result<(), CliError> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let page = format!("{name}.1");
    let file = folder.join(&page);
    let written = page_of(command, &name, version).and_then(|text| fs::write(&file, text));
    written.map_err(|source| CliError::File { file, source })?;
    pages.push(page);
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write_page(verb, folder, version, pages)?;
    }
    Ok(())
}

fn page_of(command: &clap::Command, name: &str, version: &str) -> std::io::Result<String> {
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section("1")
        .date(date())
        .source(format!("switchback {version}"))
        .manual("Switchback");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut page = tidy(&String::from_utf8_lossy(&text));
    let verb = name.strip_prefix("switchback").unwrap_or_default();
    if verb.is_empty() {
        page.push_str(ABOUT_ALL);
    }
    // The names of verbs have no dashes of their own.
    let examples: Vec<_> = of(verb.replace('-', " ").trim()).collect();
    if !verb.is_empty() && !examples.is_empty() {
        page.push_str(".SH EXAMPLES\n.nf\n");
        examples.iter().for_each(|line| page.push_str(&format!("{}\n", escaped(line))));
        page.push_str(".fi\n");
    }
    if let Some((above, _)) = name.rsplit_once('-') {
        page.push_str(&format!(".SH \"SEE ALSO\"\n.BR {} (1)\n", escaped(above)));
    }
    Ok(page)
}

/// The date of the pages: of now, or what whoever wants the same pages every time has set.
fn date() -> String {
    let set = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let at = set.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_else(Timestamp::now);
    at.strftime("%Y-%m-%d").to_string()
}

/// Without spaces at the end of lines, and without breaks beside blank lines, which mandoc warns of.
fn tidy(page: &str) -> String {
    let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        let beside = |other: Option<usize>| {
            other.and_then(|at| lines.get(at)).is_some_and(|line| line.is_empty() || *line == ".sp")
        };
        if *line == ".br" && (beside(at.checked_sub(1)) || beside(Some(at + 1))) {
            continue;
        }
        out.push_str(if line.is_empty() { ".sp" } else { line });
        out.push('\n');
    }
    out
}

/// Text that roff prints as it is.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// The names of the pages, one per line.
pub(super) fn listed(pages: &Value) -> String {
    pages.texts("pages").iter().map(|page| format!("{page}\n")).collect()
}
