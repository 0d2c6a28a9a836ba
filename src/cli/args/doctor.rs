//! What the doctor is asked.

use std::path::PathBuf;

use clap::Args;

use crate::words::Target;

#[derive(Debug, Args)]
pub struct Doctor {
    /// The directory that is to be protected
    pub dir: Option<PathBuf>,
    /// Where its replica is to be: local:PATH or standin://host:port/repset
    #[arg(long, value_name = "TARGET")]
    pub to: Vec<Target>,
    /// Write what a fault can be told from into a new file, for whoever is asked about it: this report, and of every
    /// daemon of this host its status, history, events and options; names of files, directories and hosts are not in it
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// With --bundle: with the names, and the texts in which they stand
    #[arg(long, requires = "bundle")]
    pub with_names: bool,
}
