mod loss;
mod messages;
mod pair;
mod prefixes;
mod rate;
mod resync;
mod statuses;

use pair::*;
