//! temp
#[path = "cli/serve.rs"]
mod serve;
fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    serve::run(args.next().map(Into::into), args.next())
}
