//! `tidegate man`: the manual's pages, a page a command.
//!
//! ```text
//! $ tidegate man | man -l -                      # tidegate(1)
//! $ tidegate man /usr/local/share/man/man1       # tidegate.1, tidegate-check.1, tidegate-policy-diff.1, …
//! ```
//!
//! What `--help` says and what a page says is one text. No page carries a date: the same program
//! writes the same bytes.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_mangen::Man;
use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::{Cli, Exit};

/// Print the manual page, or write a page for each command into a directory
#[derive(clap::Args)]
#[command(after_help = "\
It needs no node. With DIR, which is made if it isn't there, it prints what it wrote; pages of that name are replaced.

Examples:
  tidegate man | man -l -
  tidegate man /usr/local/share/man/man1
  tidegate man ./man -o json")]
pub struct ManArgs {
    /// Where to write the pages of all commands; without it, tidegate(1) is printed
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl ManArgs {
    /// Prints or writes.
    pub fn run(self, out: &mut Output<'_>) -> Result<Exit, Failure> {
        let pages = pages()?;
        match self.dir {
            Some(dir) => write(&pages, &dir, out)?,
            None => pages.first().map_or(Ok(()), |page| out.line(&page.text))?,
        }
        Ok(Exit::Done)
    }
}

struct Page {
    /// `tidegate-policy-diff.1`.
    file: String,
    text: String,
}

/// The page of the program, then those of its commands.
fn pages() -> Result<Vec<Page>, Failure> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let source = format!("{} {}", root.get_name(), env!("CARGO_PKG_VERSION"));
    let mut pages = Vec::new();
    let mut commands = vec![root];
    while let Some(command) = commands.pop() {
        // The last of the pile comes next, so that a group's verbs follow it in their order.
        commands.extend(command.get_subcommands().cloned().collect::<Vec<_>>().into_iter().rev());
        let end =
            command.get_after_help().map(|help| end_of_page(&help.to_string())).unwrap_or_default();
        let man = Man::new(command.after_help(None::<&str>)).source(source.clone());
        let mut text = Vec::new();
        man.render(&mut text)
            .map_err(|e| Failure::Failed(format!("{}: {e}", man.get_filename())))?;
        let text = String::from_utf8_lossy(&text).into_owned() + &end;
        pages.push(Page { file: man.get_filename(), text });
    }
    Ok(pages)
}

/// What `--help` says below the flags, as sections. The library would fill it like prose, and
/// examples would run together.
fn end_of_page(help: &str) -> String {
    let (mut page, mut section) = (String::new(), "");
    let mut begin = |page: &mut String, title: &'static str| {
        if section != title {
            page.push_str(&format!(".SH {title}\n"));
            section = title;
        }
    };
    for line in help.lines() {
        match line {
            "" => page.push_str(".PP\n"),
            "Examples:" => begin(&mut page, "EXAMPLES"),
            _ if line.starts_with("  ") => {
                page.push_str(&format!(".nf\n{}\n.fi\n", as_roff(line.trim_start())))
            }
            _ => {
                begin(&mut page, "NOTES");
                page.push_str(&format!("{}\n", as_roff(line)));
            }
        }
    }
    page
}

/// A line that stands for itself: no command for the typesetter, and with dashes that can be
/// copied.
fn as_roff(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

fn write(pages: &[Page], dir: &Path, out: &mut Output<'_>) -> Result<(), Failure> {
    let unwritable = |path: &Path, e: std::io::Error| {
        Failure::Failed(format!("can't write {}: {e}", path.display()))
    };
    std::fs::create_dir_all(dir).map_err(|e| unwritable(dir, e))?;
    let mut written = Vec::new();
    for page in pages {
        let path = dir.join(&page.file);
        std::fs::write(&path, &page.text).map_err(|e| unwritable(&path, e))?;
        written.push(path.display().to_string());
    }
    match out.is_json() {
        true => out.json(&json!({"pages": written}).to_string()),
        false => out.line(&written.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::commands;
    use super::super::testing::{run_words, words};
    use super::*;

    #[test]
    fn without_a_directory_the_programs_own_page_is_printed() {
        let ran = run_words(words("tidegate man"));
        assert_eq!((ran.exit, ran.notes.as_str()), (Exit::Done, ""));
        assert!(ran.data.contains(".TH tidegate 1"), "{}", ran.data);
        for word in ["tidegate\\-policy(1)", "TIDEGATE_URL", "Exit codes: 0 done"] {
            assert!(ran.data.contains(word), "{word}: {}", ran.data);
        }
    }

    #[test]
    fn every_command_gets_a_page_with_its_flags_and_examples() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("share/man1");
        let ran = run_words(words(&format!("tidegate man {} -o json", dir.display())));
        assert_eq!(ran.exit, Exit::Done, "{ran:?}");
        let printed: serde_json::Value = serde_json::from_str(&ran.data).unwrap();
        let printed: Vec<_> =
            printed["pages"].as_array().unwrap().iter().filter_map(|p| p.as_str()).collect();
        let commands = commands();
        assert_eq!(printed.len(), commands.len(), "{printed:?}");
        for (name, command) in commands {
            let path = dir.join(format!("{}.1", name.replace(' ', "-")));
            assert!(printed.contains(&path.to_str().unwrap()), "{name}: {printed:?}");
            let page = std::fs::read_to_string(path).unwrap();
            assert!(page.contains(".SH EXAMPLES\n.nf\n"), "{page}");
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(page.contains(&flag.replace('-', "\\-")), "{name} --{flag}: {page}");
            }
        }
    }

    #[test]
    fn notes_are_filled_and_examples_keep_their_lines() {
        assert_eq!(
            end_of_page(
                ".a \\ note\nof two lines\n\nExamples:\n  run --it\n  run it\n\nExit codes"
            ),
            ".SH NOTES\n\\&.a \\e note\nof two lines\n.PP\n.SH EXAMPLES\n.nf\nrun \\-\\-it\n.fi\n\
             .nf\nrun it\n.fi\n.PP\n.SH NOTES\nExit codes\n"
        );
    }

    #[test]
    fn a_directory_that_cant_be_written_fails() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ran = run_words(words(&format!("tidegate man {}", file.path().display())));
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Failed, ""));
        assert!(ran.notes.starts_with("error: can't write "), "{}", ran.notes);
    }
}
