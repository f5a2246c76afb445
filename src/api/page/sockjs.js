// A client of SockJS 0.3.3, with the interface of a WebSocket: for networks that block WebSockets.
// A session receives packets `o`, `h`, `a[...]`, `m"..."` and `c[code,reason]` over a receiver, and sends arrays of strings
// by POST; or does both over one WebSocket.

export const TRANSPORTS = ['websocket', 'xhr-streaming', 'eventsource', 'xhr-polling'];

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 3;

export class SockJS {
  readyState = CONNECTING;
  onopen = () => {};
  onmessage = () => {};
  onclose = () => {};

  #connection;
  #tap;

  /** `url` is the base, such as `http://host/ws`; `tap(direction, text)` is called for each packet. */
  constructor(url, transport, tap = () => {}) {
    this.#tap = tap;
    const base = `${url}/${String(Math.floor(Math.random() * 1_000)).padStart(3, '0')}/${randomId()}`;
    const connect = { websocket: overWebSocket, 'xhr-streaming': overXhr, eventsource: overEventSource, 'xhr-polling': overXhr };
    this.#connection = connect[transport](base, {
      packet: (text) => this.#receive(text),
      lost: () => this.#end(1006, 'the connection was lost'),
      tap: (text) => tap('out', text),
      route: transport === 'xhr-polling' ? 'xhr' : 'xhr_streaming',
    });
  }

  send(text) {
    if (this.readyState === OPEN) this.#connection.send(text);
  }

  close() {
    this.#end(1000, '');
  }

  #receive(packet) {
    if (this.readyState === CLOSED) return;
    // The prelude of a stream is a long line of `h`.
    if (!/^hh+$/.test(packet)) this.#tap('in', packet);
    const value = packet.length > 1 && packet[0] !== 'h' ? JSON.parse(packet.slice(1)) : undefined;
    switch (packet[0]) {
      case 'o':
        this.readyState = OPEN;
        this.onopen();
        break;
      case 'a':
        for (const data of value) this.onmessage({ data });
        break;
      case 'm':
        this.onmessage({ data: value });
        break;
      case 'c':
        this.#end(...value);
        break;
    }
  }

  #end(code, reason) {
    if (this.readyState === CLOSED) return;
    this.readyState = CLOSED;
    this.#connection.end();
    this.onclose({ code, reason });
  }
}

/** 128 random bits: anyone who knows a session's id can send in its name. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function overWebSocket(base, { packet, lost, tap }) {
  const socket = new WebSocket(`${base.replace(/^http/, 'ws')}/websocket`);
  socket.onmessage = ({ data }) => packet(data);
  socket.onclose = lost;
  const send = (text) => {
    const array = JSON.stringify([text]);
    tap(array);
    socket.send(array);
  };
  return { send, end: () => socket.close() };
}

/** Streaming and polling differ only in the packets per response; after each response the next request follows. */
function overXhr(base, { packet, lost, tap, route }) {
  const abort = new AbortController();
  const receive = async () => {
    while (!abort.signal.aborted) {
      const response = await fetch(`${base}/${route}`, { method: 'POST', signal: abort.signal });
      if (!response.ok) throw new Error(`${route} answers ${response.status}`);
      let line = '';
      for await (const text of chunks(response)) {
        const [first, ...more] = text.split('\n');
        line += first;
        for (const next of more) {
          packet(line);
          line = next;
        }
      }
    }
  };
  receive().catch(lost);
  return { send: posts(base, lost, tap, abort.signal), end: () => abort.abort() };
}

async function* chunks(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield decoder.decode(value, { stream: true });
  }
}

function overEventSource(base, { packet, lost, tap }) {
  const abort = new AbortController();
  const source = new EventSource(`${base}/eventsource`);
  // Line ends and percent signs are percent-encoded, as an event's data has none.
  source.onmessage = ({ data }) => packet(decodeURIComponent(data));
  // The source reconnects by itself after a stream has ended in order; when closed, it has failed.
  source.onerror = () => source.readyState === EventSource.CLOSED && lost();
  const end = () => {
    source.close();
    abort.abort();
  };
  return { send: posts(base, lost, tap, abort.signal), end };
}

/** Sends by POST: one request at a time keeps the order, and takes along all messages queued meanwhile. */
function posts(base, lost, tap, signal) {
  const queue = [];
  let posting = false;
  const post = async () => {
    posting = true;
    while (queue.length > 0) {
      const body = JSON.stringify(queue.splice(0));
      tap(body);
      const response = await fetch(`${base}/xhr_send`, { method: 'POST', body, signal });
      if (!response.ok) throw new Error(`xhr_send answers ${response.status}`);
    }
    posting = false;
  };
  return (text) => {
    queue.push(text);
    if (!posting) post().catch(lost);
  };
}
