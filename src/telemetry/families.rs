//! The metric families: names, types and help texts in one table, and how samples are put into them.

use prometheus::core::Desc;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::cells::DURATION_BOUNDS_US;

/// A family's name, type, labels and help text.
pub(super) struct Family {
    pub(super) name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
}

macro_rules! families {
    ($($const:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $const: Family = Family {
            name: concat!("switchback_", $name),
            kind: MetricType::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every family.
        pub(super) const ALL: &[&Family] = &[$(&$const),*];
    };
}

families! {
    REQUESTS = COUNTER "requests_total" ["service", "version", "code"]
        "Requests that came to an end, by version and class of the status sent to the client (none: no status).";
    FAILURES = COUNTER "request_failures_total" ["service", "version", "kind"]
        "Requests that the backend failed, by kind. Refusals by the proxy and clients that left are not failures.";
    DURATION = HISTOGRAM "request_duration_seconds" ["service", "version"]
        "Time until the response header. The time of the bodies does not count.";
    IN_FLIGHT = GAUGE "requests_in_flight" ["service", "version"] "Requests on their way now.";
    ABORTS = COUNTER "client_aborts_total" ["service", "version"]
        "Requests whose client went away before the answer was complete.";
    RESCUES = COUNTER "rescues_total" ["service", "from", "to", "result"]
        "Requests that failed on the version they were routed to, by what became of them at the baseline.";
    SKEWS = COUNTER "skewed_requests_total" ["service", "from", "to", "result"]
        "Requests for assets that the version they were routed to did not have, by whether another version had them.";
    SHADOW = COUNTER "shadow_requests_total" ["service", "version", "result"]
        "Copies of requests for a version that users do not see, by result, judged by what was known as noise then.";
    STREAMS_OPEN = GAUGE "streams_open" ["service", "version"]
        "WebSockets, server-sent events and gRPC calls that are open now.";
    STREAMS_CLOSED = COUNTER "streams_closed_total" ["service", "version", "reason"]
        "Streams that the proxy closed because their next request would not have gone to the version, by reason; cut: without a goodbye.";
    SESSIONS = COUNTER "session_cookies_total" ["service", "result"]
        "Requests of services with sessions, by what became of their session: new, kept, renewed, overridden, expired, foreign, forged.";
    SPLIT = GAUGE "split_weight_ratio" ["service", "version"]
        "Share of the service's keys that the version gets by the service's split, 0 to 1.";
    BASELINE = GAUGE "baseline_info" ["service", "version"] "1, with the version that the service trusts as a label.";
    TENANT_REQUESTS = COUNTER "tenant_requests_total" ["service", "tenant", "version"]
        "Requests that came to an end, for the busiest and the worst tenants; all others as _other.";
    TENANT_FAILURES = COUNTER "tenant_failures_total" ["service", "tenant", "version"]
        "Requests that the backend failed, for the busiest and the worst tenants; all others as _other.";
    ROLLBACKS = COUNTER "rollbacks_total" ["service", "reason"] "Times that traffic was taken back to the baseline.";
    EVIDENCE = GAUGE "guard_evidence" ["service", "signal"]
        "Natural logarithm of the evidence against the canary in the service's scope that has most; guard_evidence_threshold says when it is enough.";
    EVIDENCE_THRESHOLD = GAUGE "guard_evidence_threshold" ["service"]
        "The value of guard_evidence at which traffic is taken back: the natural logarithm of 1/error_probability.";
    SPLIT_OFF = GAUGE "guard_split_off" ["service"]
        "Whether the requests that are compared are not split as configured, 1 or 0; only while a canary is compared.";
    RELOADS = COUNTER "config_reloads_total" ["result"] "Times that the configuration file was read again, by result.";
    STORE_UP = GAUGE "store_up" [] "Whether the store takes commits, 1 or 0. Traffic flows either way.";
    REVISION = GAUGE "state_revision" [] "Revision of the state that is in effect in this process.";
    REFUSED_STATES = COUNTER "refused_states_total" []
        "States of the store that did not fit this process, which went on with the one before.";
    MEMBERS = GAUGE "fleet_members" [] "Processes that share the store, as far as this one knows; 0 without etcd.";
    LEADER = GAUGE "fleet_leader" [] "Whether this process judges and advances for the fleet, 1 or 0.";
    CERTIFICATE_EXPIRY = GAUGE "certificate_expiry_timestamp_seconds" ["certificate"]
        "When the certificate in this file ends, in seconds since the Unix epoch.";
    CERTIFICATE_RELOADS = COUNTER "certificate_reloads_total" ["result"]
        "Times that certificates were read again because a file had changed, by result.";
    CONNECTIONS = GAUGE "open_connections" [] "Connections of clients that are open now.";
    REFUSED = COUNTER "refused_requests_total" ["reason"] "Requests that the proxy itself refused, by reason.";
    LOG_DROPPED = COUNTER "access_log_dropped_total" []
        "Lines of the access log that were dropped because writing did not keep up or failed.";
    SPANS = COUNTER "trace_spans_total" ["result"]
        "Spans by what became of them: exported, dropped (the queue was full), failed (the collector did not take them).";
    ENDPOINT_UP = GAUGE "endpoint_up" ["service", "version", "endpoint"] "Whether the endpoint is healthy, 1 or 0.";
    NOTIFICATIONS = COUNTER "notifications_total" ["target", "result"]
        "Messages by what became of them: sent, failed, dropped (the queue was full), suppressed (told before), and retried attempts.";
    BUILD_INFO = GAUGE "build_info" ["version"] "1, with the version of this program as a label.";
}

impl Family {
    /// For the registry's checks; none when the family itself is not sound, which a test rules out.
    pub(super) fn desc(&self) -> Option<Desc> {
        let labels = self.labels.iter().map(|l| (*l).to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, Default::default()).ok()
    }

    /// The family with these samples.
    pub(super) fn with(&self, samples: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(samples);
        family
    }

    /// A sample of a counter or gauge; `values` in the order of the labels.
    pub(super) fn sample(&self, values: &[&str], value: f64) -> Metric {
        let mut metric = Metric::from_label(self.pairs(values));
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }

    /// A histogram over the duration buckets from counts per bucket, the last one for everything slower.
    pub(super) fn histogram(&self, values: &[&str], counts: &[u64], sum_s: f64) -> Metric {
        let mut below = 0;
        let bucket = |(bound, count): (&u64, &u64)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / 1e6);
            bucket.set_cumulative_count(below);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(DURATION_BOUNDS_US.iter().zip(counts).map(bucket).collect());
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum_s);
        let mut metric = Metric::from_label(self.pairs(values));
        metric.set_histogram(histogram);
        metric
    }

    fn pairs(&self, values: &[&str]) -> Vec<LabelPair> {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        self.labels.iter().zip(values).map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `promtool check metrics` asks for.
    #[test]
    fn families_keep_the_conventions() {
        for family in ALL {
            assert!(family.desc().is_some(), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == MetricType::COUNTER, "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
            let words: Vec<_> = family.name.split('_').collect();
            for unit in
                ["milliseconds", "ms", "microseconds", "minutes", "percent", "kilobytes", "count", "bucket", "sum"]
            {
                assert!(!words.contains(&unit), "{}", family.name);
            }
            for label in family.labels {
                assert!(!["le", "quantile"].contains(label) && !label.starts_with("__"), "{}", family.name);
            }
        }
    }
}
