//! `tidegate completions`: what a shell has to know to complete a line.
//!
//! ```text
//! $ tidegate completions bash > /etc/bash_completion.d/tidegate
//! $ tidegate pol<TAB> di<TAB> --u<TAB>
//! ```
//!
//! The script is made from the commands as this program reads them, so the two can't disagree; it
//! asks no node.

use clap::CommandFactory;
use clap_complete::{Generator, Shell};

use super::failure::Failure;
use super::output::Output;
use super::{Cli, Exit};

/// Print a shell's completion script
#[derive(clap::Args)]
#[command(after_help = "\
It needs no node. The script is printed as it is, whatever -o says.

Examples:
  tidegate completions bash > /etc/bash_completion.d/tidegate
  tidegate completions zsh > \"${fpath[1]}/_tidegate\"
  tidegate completions fish > ~/.config/fish/completions/tidegate.fish
  tidegate completions elvish >> ~/.config/elvish/rc.elv
  tidegate completions powershell >> $PROFILE")]
pub struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script.
    pub fn run(self, out: &mut Output<'_>) -> Result<Exit, Failure> {
        let mut command = Cli::command();
        command.set_bin_name(command.get_name().to_string());
        command.build();
        let mut script = Vec::new();
        let made = self.shell.try_generate(&command, &mut script);
        made.map_err(|e| {
            Failure::Failed(format!("can't write the script for {}: {e}", self.shell))
        })?;
        out.line(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
#[path = "../../tests/rig/needs.rs"]
mod needs;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::super::commands;
    use super::super::testing::{run_words, words};
    use super::needs::needs;
    use super::*;

    fn script(shell: &str) -> String {
        let ran = run_words(words(&format!("tidegate completions {shell}")));
        assert_eq!((ran.exit, ran.notes.as_str()), (Exit::Done, ""));
        ran.data
    }

    #[test]
    fn every_shells_script_names_every_command_and_every_flag() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = script(shell);
            for (name, command) in commands() {
                assert!(script.contains(command.get_name()), "{shell} {name}");
                // A short name may occur by chance; bash shows nothing more, and is asked to
                // complete below.
                let about = command.get_about().map(ToString::to_string).unwrap_or_default();
                let about = about.split(['\'', ':']).next().unwrap();
                let is_root = !name.contains(' ');
                assert!(
                    shell == "bash" || is_root || script.contains(about),
                    "{shell} {name}: {about}"
                );
                for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                    // fish writes the name of a flag without its dashes
                    assert!(script.contains(flag), "{shell} {name} --{flag}");
                }
            }
        }
    }

    #[test]
    fn a_shell_that_nobody_knows_is_misuse() {
        let misused = super::super::Line::read(words("tidegate completions tcsh")).err().unwrap();
        assert_eq!(misused.exit_code(), 2);
    }

    /// Returns what `shell -n` finds wrong with its script, of which it runs nothing.
    fn faults_by(shell: &Path) -> String {
        let name = shell.file_name().and_then(|name| name.to_str()).unwrap();
        let pipes = (Stdio::piped(), Stdio::null(), Stdio::piped());
        let started =
            Command::new(shell).arg("-n").stdin(pipes.0).stdout(pipes.1).stderr(pipes.2).spawn();
        let mut child = started.unwrap();
        child.stdin.take().unwrap().write_all(script(name).as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        let faults = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.success(), faults.is_empty(), "{faults}");
        faults
    }

    #[test]
    fn the_shells_that_are_here_accept_their_scripts() {
        for shell in ["bash", "zsh", "fish"] {
            let Some(program) = needs(shell) else { continue };
            assert_eq!(faults_by(&program), "", "{shell}");
        }
    }

    #[test]
    fn bash_completes_a_command_a_verb_a_flag_and_a_shell() {
        let Some(bash) = needs("bash") else { return };
        let completed = |line: &[&str]| {
            let words = line.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            let (last, before) = (line.len() - 1, line.len() - 2);
            let call = format!(
                "{}\nCOMP_WORDS=({words}); COMP_CWORD={last}\n_tidegate tidegate '{}' '{}'\necho \
                 \"${{COMPREPLY[*]}}\"\n",
                script("bash"),
                line[last],
                line[before]
            );
            let ran = Command::new(&bash).args(["--norc", "-c", &call]).output().unwrap();
            String::from_utf8_lossy(&ran.stdout).trim().to_string()
        };
        for (line, expected) in [
            (&["tidegate", "pol"][..], "policy"),
            (&["tidegate", "policy", "di"], "diff"),
            (&["tidegate", "policy", "diff", "--ur"], "--url"),
            (&["tidegate", "completions", "po"], "powershell"),
            (&["tidegate", "tenant", "show", "-o", "j"], "json"),
        ] {
            assert_eq!(completed(line), expected, "{line:?}");
        }
    }
}
