//! `tidegate`, the program: a node, and the commands that ask one. All it does is in [`cli`].

mod cli;

/// Answers are made by one worker and let go by another, all day long; this allocator is made for
/// that, and takes about a sixth off a decision's cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::Line::read(std::env::args_os()).unwrap_or_else(|misused| misused.exit()).run()
}
