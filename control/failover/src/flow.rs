/// x
#[derive(Clone, Debug, Default)]
pub struct FlowCounters;
