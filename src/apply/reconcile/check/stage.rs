//! How a comparison begins and ends.

use super::{Check, Went};
use crate::apply::fault::Fault;
use crate::apply::reconcile::{Reconcile, Stage};
use crate::apply::replica::Replica;
use crate::packet::{DataState, ItemHeader, LaneItem, Op, Position, TargetMessage, Text};

impl Reconcile {
    /// Takes what belongs to a comparison.
    pub(in crate::apply::reconcile) fn compare(
        &mut self,
        replica: &mut Replica,
        position: Position,
        header: &ItemHeader,
        payload: &[u8],
    ) -> Option<Vec<TargetMessage>> {
        let went = match (&mut self.stage, &header.item) {
            (_, LaneItem::Begin | LaneItem::BeginOwed { .. }) | (Stage::Begun(_) | Stage::Rooted(_), _) => {
                return None;
            }
            (_, LaneItem::CheckBegin { content }) => {
                if replica.data().state == DataState::Good {
                    self.stage = Stage::Checking(Box::new(Check::begin(replica, content.as_ref())));
                    return Some(Vec::new());
                }
                Err(Fault::Refused("a comparison of a replica that is not good"))
            }
            (_, LaneItem::CheckStop) => Ok(Went::Over(vec![TargetMessage::CheckStopped])),
            (Stage::Checking(check), _) => check.take(replica, position, header, payload),
            (Stage::CheckOver { .. }, _) => return Some(Vec::new()),
            (Stage::Resting, _) => return None,
        };
        Some(match went {
            Ok(Went::On(answers)) => answers,
            Ok(Went::Over(answers)) => {
                self.stage = Stage::Resting;
                answers
            }
            Err(fault) => {
                self.stage = Stage::CheckOver { untold: None };
                vec![not_checked(&fault)]
            }
        })
    }

    /// A packet was performed elsewhere.
    pub fn passed(&mut self, op: &Op) {
        if let Stage::Checking(check) = &mut self.stage
            && let Err(fault) = check.passed(op)
        {
            self.stage = Stage::CheckOver { untold: Some(Box::new(not_checked(&fault))) };
        }
    }
}

fn not_checked(fault: &Fault) -> TargetMessage {
    TargetMessage::NotChecked { reason: Text::from_str_cut(&fault.to_string()) }
}
