//! What keys mean, whatever style they are written in.

/// What a key says its value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The message; the lower the number, the more certainly.
    Message(u8),
    Time,
    /// Seconds of a time in two parts.
    EpochSecond,
    NanoOfSecond,
    Level,
    Host,
    Program,
    Pid,
    Thread,
    Logger,
    /// What happened, as a word.
    Event,
    /// Another value of few.
    Constant,
    /// The number or code of what happened.
    Code,
    /// A flag without a value.
    Flag,
    Method,
    Status,
    Path,
    Request,
    Client,
    Agent,
    Duration,
    Size,
    User,
    Vhost,
    Other,
}

/// The meaning of a key: case, `_`, `-` and `@` do not matter.
pub(super) fn meaning(key: &[u8]) -> Key {
    let mut plain = [0; 40];
    let mut len = 0;
    for byte in key {
        if matches!(byte, b'_' | b'-' | b'@') {
            continue;
        }
        if len == plain.len() {
            return Key::Other;
        }
        plain[len] = byte.to_ascii_lowercase();
        len += 1;
    }
    match &plain[..len] {
        b"message" | b"fields.message" | b"log.message" => Key::Message(1),
        b"msg" | b"fields.msg" => Key::Message(2),
        b"shortmessage" | b"renderedmessage" | b"mt" | b"m" => Key::Message(3),
        b"log" | b"body" | b"text" => Key::Message(4),
        b"time" | b"ts" | b"timestamp" | b"t" | b"t.$date" | b"date" | b"datetime" | b"eventtime" | b"asctime"
        | b"fields.time" | b"fields.timestamp" | b"starttime" | b"startutc" | b"timegenerated" | b"timecreated"
        | b"timelocal" | b"timeiso8601" | b"timestampns" => Key::Time,
        b"startlocal" | b"receivedat" | b"timelogged" => Key::Time,
        b"instant.epochsecond" => Key::EpochSecond,
        b"instant.nanoofsecond" => Key::NanoOfSecond,
        b"level" | b"lvl" | b"l" | b"severity" | b"loglevel" | b"log.level" | b"levelname" | b"s" | b"fields.level"
        | b"fields.lvl" | b"severitytext" | b"priority" | b"syslog.severity" => Key::Level,
        b"host"
        | b"hostname"
        | b"host.name"
        | b"host.hostname"
        | b"node"
        | b"nodename"
        | b"computer"
        | b"winlog.computername" => Key::Host,
        b"service"
        | b"service.name"
        | b"app"
        | b"appname"
        | b"application"
        | b"program"
        | b"syslogidentifier"
        | b"containername"
        | b"kubernetes.containername"
        | b"systemdunit"
        | b"provider"
        | b"winlog.providername"
        | b"container.name" => Key::Program,
        b"pid" | b"processid" | b"process.pid" => Key::Pid,
        b"thread" | b"threadname" | b"process.thread.name" | b"ctx" | b"tid" | b"threadid" => Key::Thread,
        b"logger" | b"loggername" | b"target" | b"log.logger" | b"c" | b"module" | b"name" | b"category"
        | b"channel" | b"sourcecontext" | b"tag" | b"component" => Key::Logger,
        b"event" | b"event.action" | b"action" | b"eventname" | b"eventtype" | b"event.name" | b"event.type"
        | b"type" | b"op" | b"operation" => Key::Event,
        b"eventid" | b"winlog.eventid" | b"event.code" | b"eventcode" | b"sqlstate" | b"errno" | b"error.code" => {
            Key::Code
        }
        b"kind" | b"outcome" | b"event.outcome" | b"result" | b"success" | b"ok" | b"stream" | b"protocol"
        | b"proto" | b"event.category" | b"event.kind" | b"verb" | b"error.type" | b"exception.type" | b"errorcode"
        | b"eventsource" | b"decision" | b"verdict" | b"allowed" | b"denied" | b"state" => Key::Constant,
        b"method"
        | b"httpmethod"
        | b"requestmethod"
        | b"request.method"
        | b"req.method"
        | b"http.request.method"
        | b"http.method"
        | b"httprequest.requestmethod" => Key::Method,
        b"status"
        | b"statuscode"
        | b"httpstatus"
        | b"httpstatuscode"
        | b"responsestatus"
        | b"downstreamstatus"
        | b"res.statuscode"
        | b"http.response.statuscode"
        | b"http.statuscode"
        | b"responsecode"
        | b"code"
        | b"httprequest.status"
        | b"response.status" => Key::Status,
        b"path"
        | b"uri"
        | b"url"
        | b"requestpath"
        | b"requesturi"
        | b"request.uri"
        | b"request.url"
        | b"request.path"
        | b"req.url"
        | b"http.url"
        | b"url.path"
        | b"http.target"
        | b"requesturl"
        | b"httppath"
        | b"url.original"
        | b"httprequest.requesturl" => Key::Path,
        b"request" => Key::Request,
        b"clientip" | b"remoteaddr" | b"remoteip" | b"clienthost" | b"remotehost" | b"ip" | b"request.remoteip"
        | b"request.clientip" | b"client" | b"remoteaddress" | b"clientaddr" | b"req.remoteaddress" | b"client.ip"
        | b"source.ip" | b"client.address" | b"ipaddress" | b"sourceipaddress" => Key::Client,
        b"useragent"
        | b"httpuseragent"
        | b"agent"
        | b"request.headers.useragent"
        | b"requestuseragent"
        | b"useragent.original"
        | b"req.headers.useragent" => Key::Agent,
        b"duration" | b"latency" | b"elapsed" | b"requesttime" | b"responsetime" | b"took" | b"durationms"
        | b"elapsedms" | b"latencyms" | b"elapsedtime" => Key::Duration,
        b"bytes"
        | b"bodybytessent"
        | b"size"
        | b"responsesize"
        | b"downstreamcontentsize"
        | b"bytessent"
        | b"contentlength" => Key::Size,
        b"user" | b"username" | b"remoteuser" | b"clientusername" | b"userid" => Key::User,
        b"vhost" | b"requesthost" | b"request.host" | b"httphost" | b"servername" | b"serverhost" => Key::Vhost,
        _ => Key::Other,
    }
}
