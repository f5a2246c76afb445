// STOMP 1.2 for a client, over anything with the interface of a WebSocket.
// https://stomp.github.io/stomp-specification-1.2.html

const ESCAPES = { '\r': '\\r', '\n': '\\n', ':': '\\c', '\\': '\\\\' };
const ESCAPED = { '\\r': '\r', '\\n': '\n', '\\c': ':', '\\\\': '\\' };

/** The heart-beat interval that this client offers and wants, in milliseconds. */
const HEARTBEAT_MS = 10_000;

/** A frame as text. Headers of CONNECT are not escaped, for the sake of STOMP 1.0. */
export function encode(command, headers = {}, body = '') {
  const escape = (text) => (command === 'CONNECT' ? text : text.replace(/[\r\n:\\]/g, (character) => ESCAPES[character]));
  const lines = Object.entries(headers).map(([name, value]) => `${escape(name)}:${escape(String(value))}\n`);
  return `${command}\n${lines.join('')}\n${body}\0`;
}

/** Text in pieces of any size to frames `{command, headers, body}`. */
export class Decoder {
  #text = '';

  *decode(piece) {
    this.#text += piece;
    for (;;) {
      // EOLs between frames are heart-beats.
      this.#text = this.#text.replace(/^[\r\n]+/, '');
      const head = /\r?\n\r?\n/.exec(this.#text);
      if (!head) return;
      const [command, ...lines] = this.#text.slice(0, head.index).split(/\r?\n/);
      const headers = readHeaders(lines, command !== 'CONNECTED');
      const begin = head.index + head[0].length;
      const end = bodyEnd(this.#text, begin, headers['content-length']);
      if (end < 0) return;
      const body = this.#text.slice(begin, end);
      this.#text = this.#text.slice(end + 1);
      yield { command, headers, body };
    }
  }
}

function readHeaders(lines, escaped) {
  const unescape = (text) => (escaped ? text.replace(/\\[rnc\\]/g, (pair) => ESCAPED[pair]) : text);
  const headers = Object.create(null);
  for (const line of lines) {
    const colon = line.indexOf(':');
    // The first of repeated headers counts.
    headers[unescape(line.slice(0, colon))] ??= unescape(line.slice(colon + 1));
  }
  return headers;
}

/** Index of the NUL after a body, or -1 while it is missing. `length` is in bytes of UTF-8. */
function bodyEnd(text, begin, length) {
  if (length === undefined) return text.indexOf('\0', begin);
  let at = begin;
  for (let bytes = Number(length); bytes > 0 && at < text.length; ) {
    const point = text.codePointAt(at);
    bytes -= point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    at += point < 0x10000 ? 1 : 2;
  }
  return at < text.length ? at : -1;
}

/** A refusal of the server, or the end of the session. */
export class Refusal extends Error {
  constructor({ code, message, retryAfter }) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/**
 * One session, from CONNECT to the end of its socket. Set `onconnected` and `onended` at once; `onended` receives
 * `{code, reason, error}`, of which `error` is the `message` of an ERROR frame.
 */
export class Session {
  onconnected = () => {};
  onended = () => {};

  #socket;
  #decoder = new Decoder();
  #subscriptions = new Map();
  #receipts = new Map();
  #ids = 0;
  #beats = [];
  #error;
  #ended = false;

  constructor(socket, headers) {
    this.#socket = socket;
    socket.onopen = () => {
      const versions = { 'accept-version': '1.2', host: location.hostname };
      this.#write(encode('CONNECT', { ...versions, 'heart-beat': `${HEARTBEAT_MS},${HEARTBEAT_MS}`, ...headers }));
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#end(code, reason);
  }

  /** Subscribes; the promise resolves once no later message can be missed. `handle` receives headers and parsed JSON. */
  subscribe(destination, handle) {
    const id = `sub-${++this.#ids}`;
    this.#subscriptions.set(id, handle);
    return this.#ask('SUBSCRIBE', { destination, id });
  }

  /** Sends; the promise resolves when the server has done it, and rejects with a `Refusal` or at the session's end. */
  send(destination, body, headers = {}) {
    return this.#ask('SEND', { destination, 'content-type': 'application/json', ...headers }, body && JSON.stringify(body));
  }

  /** Rejects the promise of a SEND that `/user/queue/errors` reported. */
  refuse(receipt, refusal) {
    this.#receipts.get(receipt)?.reject(refusal);
    this.#receipts.delete(receipt);
  }

  /** Sends DISCONNECT, and does not wait for the answer. */
  disconnect() {
    if (this.#ended) return;
    this.#write(encode('DISCONNECT'));
    this.drop();
  }

  /** Ends the session here and now: the network may take minutes to report its loss. */
  drop(reason = '') {
    this.#socket.close();
    this.#end(1006, reason);
  }

  #ask(command, headers, body) {
    if (this.#ended) return Promise.reject(new Refusal({ code: 'disconnected', message: 'not connected' }));
    const receipt = `r-${++this.#ids}`;
    return new Promise((resolve, reject) => {
      this.#receipts.set(receipt, { resolve, reject });
      this.#write(encode(command, { ...headers, receipt }, body));
    });
  }

  #write(text) {
    this.#socket.send(text);
  }

  #receive(data) {
    this.heard = performance.now();
    for (const frame of this.#decoder.decode(data)) {
      const { command, headers, body } = frame;
      if (command === 'MESSAGE') {
        this.#subscriptions.get(headers.subscription)?.(JSON.parse(body), headers);
      } else if (command === 'RECEIPT') {
        this.#receipts.get(headers['receipt-id'])?.resolve();
        this.#receipts.delete(headers['receipt-id']);
      } else if (command === 'CONNECTED') {
        this.#beat(headers['heart-beat']);
        this.onconnected(headers);
      } else if (command === 'ERROR') {
        this.#error = headers.message;
      }
    }
  }

  /** Heart-beats both ways, each at the slower of the two intervals. */
  #beat(offer = '0,0') {
    const [sends, wants] = offer.split(',').map(Number);
    if (wants > 0) this.#beats.push(setInterval(() => this.#write('\n'), Math.max(HEARTBEAT_MS, wants) * 0.9));
    if (sends > 0) {
      const timeout = Math.max(HEARTBEAT_MS, sends) * 2.5;
      const listen = () => performance.now() - this.heard > timeout && this.drop('nothing was heard of the server');
      this.#beats.push(setInterval(listen, timeout / 5));
    }
  }

  #end(code, reason) {
    if (this.#ended) return;
    this.#ended = true;
    this.#beats.forEach(clearInterval);
    const lost = new Refusal({ code: 'disconnected', message: 'the connection was lost' });
    for (const { reject } of this.#receipts.values()) reject(lost);
    this.#receipts.clear();
    this.onended({ code, reason, error: this.#error });
  }
}
