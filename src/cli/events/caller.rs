//! Makes the calls of a hook, one after the other, on a thread of its own and in a process of its own.

use std::fs;
use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, never, unbounded};

use crate::cli::output::Printed;
use crate::commands::{Ended, Runner};
use crate::events::{Call, Told};

/// A call and how it has ended.
pub(super) struct Made {
    pub call: Call,
    pub ended: Ended,
}

/// Makes calls, one after the other.
pub(super) struct Caller {
    calls: Sender<Call>,
    pub ended: Receiver<Made>,
    /// One is being made.
    pub is_busy: bool,
}

impl Caller {
    pub fn start(hook: Option<String>, timeout: Duration) -> io::Result<Caller> {
        let (calls, to_make) = unbounded::<Call>();
        let (made, ended) = unbounded();
        let hook = hook.unwrap_or_default();
        let work = move || {
            let mut runs = Runs::default();
            for call in to_make {
                let input = serde_json::to_string(&Printed::new(&call)).unwrap_or_default();
                let ended = match hook.is_empty() {
                    true => Ended { problem: Some("there is no hook".into()), ..Ended::default() },
                    false => runs.run(&hook, timeout, &environment(&call), input),
                };
                if made.send(Made { call, ended }).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("hook".into()).spawn(work)?;
        Ok(Caller { calls, ended, is_busy: false })
    }

    pub fn make(&mut self, call: Call) {
        self.is_busy = self.calls.send(call).is_ok();
    }
}

/// A runner, started when it is needed, and again where it was killed.
#[derive(Default)]
pub(super) struct Runs {
    runner: Option<Runner>,
}

impl Runs {
    pub fn run(&mut self, command: &str, timeout: Duration, own: &[(&str, String)], input: String) -> Ended {
        let problem = |error: io::Error| Ended { problem: Some(error.to_string()), ..Ended::default() };
        let runner = match self.runner.take().map_or_else(Runner::start, Ok) {
            Ok(runner) => self.runner.insert(runner),
            Err(error) => return problem(error),
        };
        match runner.run_with(command, timeout, own, input, &never()) {
            Ok(Some(ended)) => ended,
            Ok(None) => Ended::default(),
            Err(error) => {
                self.runner = None;
                problem(error)
            }
        }
    }
}

fn environment(call: &Call) -> Vec<(&'static str, String)> {
    let Told { id, daemon, record } = &call.told;
    let event = &record.event;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    vec![
        ("STANDIN_EVENT", record.what.word().to_owned()),
        ("STANDIN_ID", id.clone()),
        ("STANDIN_CODE", event.code.word().to_owned()),
        ("STANDIN_SEVERITY", event.severity.word().to_owned()),
        ("STANDIN_HOST", host_name()),
        ("STANDIN_DAEMON", daemon.clone()),
        ("STANDIN_SET", text(&event.about.set)),
        ("STANDIN_CONNECTION", text(&event.about.connection)),
        ("STANDIN_TARGET", text(&event.about.target)),
        ("STANDIN_TEXT", event.text.clone()),
        ("STANDIN_NEXT", event.next.clone()),
        ("STANDIN_FIRST", (event.first_unix_ms / 1000).to_string()),
        ("STANDIN_LAST", (event.last_unix_ms / 1000).to_string()),
        ("STANDIN_COUNT", event.count.to_string()),
    ]
}

fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
