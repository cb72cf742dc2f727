//! What a restart keeps, and what it does not.

use super::support::{Count, Do, House, LONG, get, run};
use crate::supervision::AskError;

#[test]
fn a_panic_restarts_with_fresh_state_behind_the_same_reference() {
    run(async {
        let house = House::new();
        assert_eq!(house.count().await, 1);
        assert_eq!(house.count().await, 2);
        assert_eq!(
            house.imp.ask(Do::Panic, LONG).await,
            Err(AskError::Restarted)
        );
        assert_eq!(house.count().await, 1, "the state is fresh");
        assert_eq!(get(&house.log.hooks), 0, "no hook saw the corrupt state");
        let _ = Count;
    });
}
