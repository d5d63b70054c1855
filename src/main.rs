//! `tidegate`, the program: a node, and the commands that ask one. All it does is in [`cli`].

mod cli;

fn main() -> std::process::ExitCode {
    cli::Line::read(std::env::args_os()).unwrap_or_else(|misused| misused.exit()).run()
}
