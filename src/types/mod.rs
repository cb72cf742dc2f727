//! The small words every room shares: identifiers, time, sizes, published views.
//!
//! Each type refuses the invalid at construction, so nothing behind it checks again. Nothing
//! here does I/O, and nothing here knows actix, libp2p or sled.

mod channel;
mod footing;
mod ids;
mod lru;
mod peer_id;
mod score;
mod source;
mod time;
mod topic;
mod units;
mod view;

pub use channel::{ChannelFault, ChannelKind, Cipher, Group, Layer, SecurityInfo, SecurityLevel};
pub use footing::Footing;
pub use ids::{EventId, Origin, Party, SubjectId, SubjectIdError};
pub(crate) use lru::Lru;
pub use peer_id::{PeerId, PeerIdError};
pub use score::{ScoreError, TrustScore};
pub use source::Source;
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use topic::{Topic, TopicError};
pub use units::{ByteSize, Span, UnitError};
pub use view::{Publisher, View};
