//! The `standin` program. Everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let environment = env_logger::Env::default().default_filter_or("warn,standin=info");
    env_logger::Builder::from_env(environment).init();
    standin::cli::main()
}
