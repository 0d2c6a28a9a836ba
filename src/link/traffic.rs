//! Which way frames go over a source's large connection.

use std::net::SocketAddr;

use quinn::{Connection, SendStream};
use tokio::task::JoinSet;

use super::ending::End;
use super::frames::{self, Feed, FrameSender, Waker};
use super::outgoing::Wrapping;
use super::socket::Purpose;
use crate::limits::{RECEIVE_POOL_FREE_MAX, STREAM_WINDOW};
use crate::pool::Pool;

/// See the module.
pub(super) enum Traffic {
    /// To the target, what the feed gives.
    Out(Box<dyn Feed>),
    /// From the target: the source reads its replica back.
    Back(FrameSender),
}

impl Traffic {
    pub(super) fn purpose(&self, target: SocketAddr) -> Purpose {
        match self {
            Traffic::Out(_) => Purpose::Large { target },
            Traffic::Back(_) => Purpose::Reading { target },
        }
    }

    /// Starts it; gives the receiving end, which is to be told why the link ends.
    pub(super) fn spawn(
        self,
        parts: &mut JoinSet<End>,
        large: Connection,
        packets: SendStream,
        waker: Waker,
        wrapping: Wrapping,
    ) -> Option<FrameSender> {
        match self {
            Traffic::Out(feed) => {
                parts.spawn(frames::send(large, packets, feed, waker, wrapping));
                None
            }
            Traffic::Back(sender) => {
                parts.spawn(receive_back(large, packets, sender.clone()));
                Some(sender)
            }
        }
    }
}

/// Takes the one stream that the target opens. `packets`, which has nothing to carry, stays open with it.
async fn receive_back(large: Connection, packets: SendStream, sender: FrameSender) -> End {
    large.set_receive_window(STREAM_WINDOW.into());
    let end = match large.accept_uni().await {
        Ok(stream) => frames::receive(stream, Pool::keeping(RECEIVE_POOL_FREE_MAX), sender).await,
        Err(error) => error.into(),
    };
    drop(packets);
    end
}
