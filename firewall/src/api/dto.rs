//! What the API says, as JSON. The keys are a contract; an absent fact is an absent key.

use std::{collections::BTreeMap, num::NonZeroU32};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Version of these formats. New keys may come; a change that would break a reader raises it.
pub const SCHEMA: u32 = 1;

/// The daemon in a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of this format: 1.
    pub schema: u32,
    /// Version of the binary that runs.
    pub version: String,
    /// Version of what the kernel programs and user space share. It stands in the path of the pins.
    pub abi: u32,
    /// Process number of the daemon.
    pub pid: u32,
    /// When it was started.
    pub started: Timestamp,
    /// Whether all is as it should be.
    pub state: State,
    /// What is not, for people; empty if nothing.
    pub degraded: Vec<String>,
    /// What decides.
    pub generation: Generation,
    /// How the last reload went; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_reload: Option<Reload>,
    /// The cgroup whose processes are filtered, by its folder.
    pub cgroup: String,
    /// The folder of the pins.
    pub pins: String,
    /// The folder of the policies.
    pub folder: String,
    /// Policies in the order in which they are tried.
    pub policies: Vec<Policy>,
    /// Hits of the default of the settings since the daemon was started.
    pub hits_default: u64,
    /// Kernel programs that should be attached.
    pub hooks: Vec<Hook>,
    /// Counters of the kernel programs by their words, since their maps were made.
    pub counters: BTreeMap<String, u64>,
    /// Events that did not arrive. No verdict depended on them.
    pub losses: Losses,
    /// Where events go, the log first.
    #[serde(default)]
    pub sinks: Vec<Sink>,
    /// Lists by URL.
    pub lists: Vec<List>,
    /// Resident memory of the daemon's two processes, what they share counted once, in bytes.
    pub memory_bytes: u64,
}

/// Whether all is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The policies are enforced.
    Enforcing,
    /// They are enforced as far as can be: `degraded` has what is missing.
    Degraded,
}

/// A generation: all policies, compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Generation {
    /// Counts up from 1.
    #[schema(value_type = u32, minimum = 1)]
    pub number: NonZeroU32,
    /// Since when it decides.
    pub since: Timestamp,
    /// Where it comes from.
    pub origin: Origin,
    /// The one that a rollback would bring back; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, nullable = false, minimum = 1)]
    pub previous: Option<NonZeroU32>,
}

/// Where a generation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Compiled from the policies as they stood.
    Policies,
    /// Compiled from what the last one was compiled from, as the policies could not be.
    Last,
    /// Compiled from the boot policy.
    Boot,
    /// Brought back by a rollback.
    Rollback,
    /// Compiled from what the last one was compiled from, as the time of a rule was over.
    Time,
    /// Found in the kernel, where another daemon had put it.
    Adopted,
}

/// How a reload went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reload {
    /// When it ended.
    pub time: Timestamp,
    /// Whether the generation was swapped.
    pub done: bool,
    /// Why not, for people; of one that was done, what was warned of. Empty if there is nothing to say.
    pub message: String,
}

/// A policy with its hits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Path of its file, or `shipped` of one in the binary.
    pub source: String,
    /// Lower is tried first.
    pub priority: u32,
    /// Its rules in the order in which they are tried.
    pub rules: Vec<Rule>,
    /// `allow` or `drop`: what its apps get when no rule decided; absent if it leaves that to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub default: Option<String>,
    /// How often its default decided since the daemon was started.
    pub hits_default: u64,
}

/// A rule with its hits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// `allow`, `log` or `drop`.
    pub action: String,
    /// How often it decided, or would have in an observing policy, since the daemon was started:
    /// events times their `count`.
    pub hits: u64,
    /// When it is over, by what the clock shows now; absent of a rule that is not for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub until: Option<Timestamp>,
}

/// A kernel program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hook {
    /// Its name.
    pub program: String,
    /// Whether it is where it should be.
    pub attached: bool,
}

/// Events that did not arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Losses {
    /// The kernel had no room for them, or they could not be decoded.
    pub events: u64,
    /// The kernel had no room for them while no daemon was there to read.
    pub unread: u64,
    /// They could not be written to the log, or came faster than it can be written.
    pub unwritten: u64,
    /// A reader of the verdict stream was too slow for them; of all readers together.
    pub streams: u64,
}

/// A place for events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sink {
    /// `log`, `json`, `journal` or `metrics`.
    pub name: String,
    /// Events that wait for it, or that it is writing.
    pub queued: u64,
    /// Events that there was no room for while it was too slow.
    pub dropped: u64,
    /// Events that it could not write.
    pub failed: u64,
}

/// A list by URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct List {
    /// Its name.
    pub name: String,
    /// Name of the policy that it stands in.
    pub policy: String,
    /// Where it is fetched from.
    pub url: String,
    /// How many of its entries are used; 0 of one that was never fetched.
    pub entries: u64,
    /// When the copy that is used was received; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fetched: Option<Timestamp>,
    /// When it is looked for next; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub due: Option<Timestamp>,
    /// Why the last attempt came to nothing, for people; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failure: Option<String>,
}

/// What became of fetching a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fetched {
    /// Name of the list.
    pub list: String,
    /// Name of the policy that it stands in.
    pub policy: String,
    /// Where it was fetched from.
    pub url: String,
    /// `updated`, `not-modified`, `refused` or `failed`.
    pub result: String,
    /// Why, in a word of the closed set; absent of what is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// Why, for people; absent of what is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message: Option<String>,
    /// How many entries of the copy are used; absent if there is no copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub entries: Option<u64>,
}

/// What a reload or a rollback did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Version of this format: 1.
    pub schema: u32,
    /// What decides now.
    pub generation: Generation,
    /// How many policies there are.
    pub policies: u64,
    /// How many rules they have.
    pub rules: u64,
    /// What policies and settings are warned of, for people; empty if of nothing.
    pub warnings: String,
}

/// That enforcement is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Off {
    /// Version of this format: 1.
    pub schema: u32,
}

/// What is to be explained, in the words of `firewall explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// An address or a name, with a port and a protocol: `1.2.3.4:53/udp`, `hm.baidu.com`.
    pub destination: String,
    /// Selectors that say who asks: `exe:/usr/bin/curl`, `user:ada`.
    #[serde(default)]
    pub app: Vec<String>,
    /// Names that an address is known by, the one asked for before its aliases.
    #[serde(default)]
    pub name: Vec<String>,
}

/// Whether to wait for verdicts.
#[derive(Clone, Copy, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Follow {
    /// `true`: the answer goes on as long as the daemon does.
    pub follow: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The one key of every answer that is not 200.
    pub error: Reason,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Why, for people. Several lines of policies that are not valid.
    pub message: String,
    /// What to do; absent if the message says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hint: Option<String>,
}
