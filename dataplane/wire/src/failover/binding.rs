use std::net::Ipv6Addr;

use super::error::require;
use super::lease::{emit_leases, emit_prefix, is_ia};
use super::{
    FailoverError, FailoverOption, FailoverTime, Lease, LeaseState, Leases, ReconfigureData,
    RelayData,
};
use crate::{Duid, Emitter, IaPrefix, OptionCode, Options};

/// What a BNDUPD says about a client as such (RFC 8156 section 7.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientData<'a> {
    /// The DUID of the client; when read, of a length that [`Duid::new`] takes.
    pub client_id: &'a [u8],
    /// When the sender put this together; OPTION_CLT_TIME counts from it.
    pub base_time: FailoverTime,
    /// Body of OPTION_VSS (RFC 6607): there only outside of the global VPN.
    pub vss: Option<&'a [u8]>,
    /// The client's reconfigure key.
    pub reconfigure_data: Option<ReconfigureData<'a>>,
    /// Through which relay agents the client was last heard.
    pub relay_data: Option<RelayData<'a>>,
}

impl<'a> ClientData<'a> {
    /// Appends OPTION_CLIENT_DATA with these leases. Neighbours of one IA share an IA option.
    pub(super) fn emit<'l>(
        &self,
        leases: impl IntoIterator<Item = Lease<'l>>,
        out: &mut Emitter<'_>,
    ) {
        let mark = out.begin(OptionCode::CLIENT_DATA);
        out.option(OptionCode::CLIENT_ID, self.client_id);
        FailoverOption::LqBaseTime(self.base_time).emit(out);
        if let Some(vss) = self.vss {
            out.option(OptionCode::VSS, vss);
        }
        if let Some(data) = self.reconfigure_data {
            data.emit(out);
        }
        if let Some(data) = self.relay_data {
            data.emit(out);
        }
        let leases = leases.into_iter();
        emit_leases(
            leases.map(|it| (it.head, move |out: &mut Emitter<'_>| it.state.emit(out))),
            out,
        );
        out.end(mark);
    }
}

/// The binding of one client: body of an OPTION_CLIENT_DATA in a BNDUPD (RFC 8156 section 7.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Binding<'a> {
    /// What is said about the client.
    pub client: ClientData<'a>,
    /// All client-options.
    pub options: Options<'a>,
}

impl<'a> Binding<'a> {
    /// Reads what belongs to the client; the leases are only looked for.
    ///
    /// # Errors
    /// If the client id, the base time or every IA is missing, or an option is malformed: the
    /// BNDUPD is to be rejected as a whole with MissingBindingInformation (section 7.5.3).
    pub fn parse(options: Options<'a>) -> Result<Self, FailoverError> {
        let (mut client_id, mut base_time, mut vss) = (None, None, None);
        let (mut reconfigure_data, mut relay_data, mut has_ia) = (None, None, false);
        for option in options {
            match FailoverOption::parse(option)? {
                FailoverOption::LqBaseTime(value) => _ = base_time.get_or_insert(value),
                FailoverOption::ReconfigureData(it) => _ = reconfigure_data.get_or_insert(it),
                FailoverOption::LqRelayData(it) => _ = relay_data.get_or_insert(it),
                FailoverOption::Other(it) => match it.code {
                    OptionCode::CLIENT_ID => _ = client_id.get_or_insert(it.data),
                    OptionCode::VSS => _ = vss.get_or_insert(it.data),
                    code => has_ia |= is_ia(code),
                },
                _ => {}
            }
        }
        let within = "OPTION_CLIENT_DATA";
        let client = ClientData {
            client_id: Duid::check(require(client_id, within, OptionCode::CLIENT_ID)?)?,
            base_time: require(base_time, within, OptionCode::LQ_BASE_TIME)?,
            vss,
            reconfigure_data,
            relay_data,
        };
        if !has_ia {
            let options = "OPTION_IA_NA, OPTION_IA_TA, OPTION_IA_PD";
            return Err(FailoverError::MissingOneOf { within, options });
        }
        Ok(Self { client, options })
    }

    /// The leases of all IAs. An IA without a lease gives an error.
    #[must_use]
    pub fn leases(&self) -> Leases<'a> {
        Leases::new(self.options, true)
    }
}

/// A delegable prefix that belongs to no client: body of an OPTION_IAPREFIX outside of
/// OPTION_CLIENT_DATA (RFC 8156 section 7.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrefixLease<'a> {
    /// The prefix.
    pub prefix: Ipv6Addr,
    /// Its length in bits, at most 128.
    pub prefix_len: u8,
    /// Preferred lifetime in seconds; nobody has got one.
    pub preferred: u32,
    /// Valid lifetime likewise.
    pub valid: u32,
    /// When the sender put this together.
    pub base_time: FailoverTime,
    /// Body of OPTION_VSS (RFC 6607): there only outside of the global VPN.
    pub vss: Option<&'a [u8]>,
    /// What the failover options say.
    pub state: LeaseState<'a>,
}

impl<'a> PrefixLease<'a> {
    /// Reads the options.
    ///
    /// # Errors
    /// If a mandatory option is missing or any is malformed: the BNDUPD is to be rejected with
    /// MissingBindingInformation (section 7.5.3).
    pub fn parse(option: &IaPrefix<'a>) -> Result<Self, FailoverError> {
        let IaPrefix { preferred, valid, prefix_len, prefix, options } = *option;
        let within = "OPTION_IAPREFIX";
        let state = LeaseState::parse(within, options, Options::EMPTY)?;
        let code = OptionCode::LQ_BASE_TIME;
        let base_time = require(options.first(code), within, code)?;
        let base_time = FailoverTime(super::option::u32_body("OPTION_LQ_BASE_TIME", base_time)?);
        Ok(Self {
            prefix,
            prefix_len,
            preferred,
            valid,
            base_time,
            vss: options.first(OptionCode::VSS),
            state,
        })
    }

    /// Appends OPTION_IAPREFIX.
    pub(super) fn emit(&self, out: &mut Emitter<'_>) {
        emit_prefix(self.prefix, self.prefix_len, self.preferred, self.valid, out, |out| {
            if let Some(vss) = self.vss {
                out.option(OptionCode::VSS, vss);
            }
            FailoverOption::LqBaseTime(self.base_time).emit(out);
            self.state.emit(out);
        });
    }
}
