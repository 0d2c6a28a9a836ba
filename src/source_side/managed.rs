//! What a service manager hears of a source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::ground::Ground;
use crate::control::Phase;
use crate::limits::STOP_DRAIN;
use crate::service_manager::ServiceManager;

/// How often it is looked whether the line for people is another one.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Told by the director, each time that it has done something: it is alive as long as that goes round.
pub struct Managed {
    manager: ServiceManager,
    phase: Phase,
    line_at: Option<Instant>,
}

impl Managed {
    pub fn of_process() -> Managed {
        Managed { manager: ServiceManager::of_process(), phase: Phase::Starting, line_at: None }
    }

    pub fn tell(&mut self, phase: Phase, ground: &Ground, connections: &[Arc<Connection>]) {
        if !self.manager.listens() {
            return;
        }
        let now = Instant::now();
        let is_new = std::mem::replace(&mut self.phase, phase) != phase;
        if is_new || self.line_at.is_none_or(|at| now.saturating_duration_since(at) >= LINE_EVERY) {
            self.line_at = Some(now);
            self.manager.status(&line(phase, ground, connections));
        }
        match phase {
            Phase::Serving if is_new => self.manager.ready(),
            // A mount that is busy serves again: only behind it there is no way back.
            Phase::Draining if is_new => self.manager.stopping(STOP_DRAIN * 2),
            Phase::Starting | Phase::Serving | Phase::Draining | Phase::Stopping | Phase::Ending => {}
        }
        self.manager.alive(now);
    }
}

/// For people.
fn line(phase: Phase, ground: &Ground, connections: &[Arc<Connection>]) -> String {
    let directory = ground.options.directory.display();
    match phase {
        Phase::Starting => format!("{directory} is not mounted yet: targets are reached"),
        Phase::Serving if connections.is_empty() => format!("{directory} is captured, and goes nowhere"),
        Phase::Serving => {
            let each: Vec<String> = connections.iter().map(|connection| word(connection)).collect();
            format!("{directory} is protected; {}", each.join("; "))
        }
        Phase::Draining => format!("{directory} is unmounted; what is queued is sent"),
        Phase::Stopping => format!("{directory} is being unmounted"),
        Phase::Ending => format!("{directory} is no longer protected"),
    }
}

fn word(connection: &Connection) -> String {
    let report = connection.report();
    let how = match (connection.is_null(), report.held_back()) {
        (true, _) => "captures and sends nothing",
        (false, Some(why)) => why,
        (false, None) if report.standing().in_line => "in line",
        (false, None) => report.reason.as_str(),
    };
    format!("{} ({}): {how}", connection.id, connection.target)
}
