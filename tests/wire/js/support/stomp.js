// A session of @stomp/stompjs over ws, with all arriving frames kept until a test asks for them.

import assert from 'node:assert/strict';
import { Client, Versions } from '@stomp/stompjs';
import WebSocket from 'ws';

import { mint } from './server.js';

const TIMEOUT_MS = 8_000;

/** Rejects when `promise` takes too long, so that a missing answer is a failure and not a hang. */
export function within(promise, what, ms = TIMEOUT_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Items that arrived and were not yet asked for. */
export class Inbox {
  #arrived = [];
  #waiting = [];

  constructor(name) {
    this.name = name;
  }

  push(item) {
    const waiter = this.#waiting.shift();
    if (waiter) waiter(item);
    else this.#arrived.push(item);
  }

  next(ms = TIMEOUT_MS) {
    if (this.#arrived.length > 0) return Promise.resolve(this.#arrived.shift());
    return within(new Promise((resolve) => this.#waiting.push(resolve)), this.name, ms);
  }

  async take(count) {
    const items = [];
    while (items.length < count) items.push(await this.next());
    return items;
  }

  get length() {
    return this.#arrived.length;
  }
}

/** A subscription: its inbox holds MESSAGE frames; `json()` is the next body, parsed. */
class Subscription extends Inbox {
  async json() {
    return JSON.parse((await this.next()).body);
  }
}

let receipts = 0;

export class Session {
  subscriptions = new Map();
  errors = new Inbox('ERROR');
  closes = new Inbox('close');
  unhandled = new Inbox('a frame of no subscription');

  /**
   * `token` in the query by default, in CONNECT's Authorization with `via: 'header'`, nowhere with `via: 'none'`.
   * `options` are passed to the client unchanged.
   */
  constructor(server, { token, via = 'query', query = '', headers = {}, versions, route, ...options } = {}) {
    const inQuery = via === 'query' && token ? `token=${token}` : '';
    const url = server.endpoint([inQuery, query].filter(Boolean).join('&'), route);
    this.client = new Client({
      webSocketFactory: () => new WebSocket(url, this.client.stompVersions.protocolVersions()),
      connectHeaders: { ...(via === 'header' && { Authorization: `Bearer ${token}` }), ...headers },
      reconnectDelay: 0,
      ...(versions && { stompVersions: new Versions(versions) }),
      onStompError: (frame) => this.errors.push(frame),
      onWebSocketClose: (event) => this.closes.push({ code: event.code, reason: event.reason }),
      onUnhandledMessage: (frame) => this.unhandled.push(frame),
      onUnhandledReceipt: (frame) => this.unhandled.push(frame),
      onUnhandledFrame: (frame) => this.unhandled.push(frame),
      ...options,
    });
  }

  /** Connects; the CONNECTED frame. */
  async connect() {
    const connected = new Promise((resolve, reject) => {
      this.client.onConnect = resolve;
      this.client.onWebSocketClose = (event) => {
        this.closes.push({ code: event.code, reason: event.reason });
        reject(new Error(`closed before CONNECTED: ${event.code} ${event.reason}`));
      };
    });
    this.client.activate();
    this.connected = await within(connected, 'CONNECTED');
    this.version = this.client.connectedVersion;
    return this.connected;
  }

  /** Activates without waiting: for connects that are expected to fail. */
  attempt() {
    this.client.activate();
    return this;
  }

  #receipt(act) {
    const id = `r-${++receipts}`;
    const arrived = new Promise((resolve) => this.client.watchForReceipt(id, resolve));
    act(id);
    return arrived;
  }

  /** Subscribes and waits for the receipt, so that no later message can be missed. */
  async subscribe(destination, headers = {}) {
    const inbox = new Subscription(destination);
    const receipt = this.#receipt((id) => {
      inbox.subscription = this.client.subscribe(destination, (message) => inbox.push(message), { ...headers, receipt: id });
    });
    await within(receipt, `RECEIPT of SUBSCRIBE ${destination}`);
    return inbox;
  }

  /** Subscribes without asking for a receipt. */
  listen(destination, headers = {}) {
    const inbox = new Subscription(destination);
    inbox.subscription = this.client.subscribe(destination, (message) => inbox.push(message), headers);
    return inbox;
  }

  unsubscribe(inbox) {
    return within(this.#receipt((id) => inbox.subscription.unsubscribe({ receipt: id })), 'RECEIPT of UNSUBSCRIBE');
  }

  /** Sends without a receipt. An object is sent as JSON. */
  send(destination, body, headers = {}) {
    const text = typeof body === 'string' ? { body } : body instanceof Uint8Array ? { binaryBody: body } : { body: JSON.stringify(body) };
    this.client.publish({ destination, headers, ...text });
  }

  /** Sends and waits for the RECEIPT: the message is durable. */
  sendDurably(destination, body, headers = {}) {
    return within(this.#receipt((id) => this.send(destination, body, { ...headers, receipt: id })), `RECEIPT of SEND ${destination}`);
  }

  /** Says something into a conversation and waits for the RECEIPT. */
  say(conversation, content, headers = {}) {
    return this.sendDurably(`/app/conversations/${conversation}/send`, { content }, headers);
  }

  receiptOf(act) {
    return within(this.#receipt(act), 'RECEIPT');
  }

  /** DISCONNECT with receipt. */
  async close() {
    await within(this.client.deactivate(), 'DISCONNECT');
  }

  /** Cuts the connection without a close frame. */
  cut() {
    this.client.deactivate({ force: true });
  }

  async expectError(pattern, code) {
    const error = await this.errors.next();
    assert.match(error.headers.message, pattern);
    const close = await this.closes.next();
    assert.equal(close.code, code);
    return error;
  }
}

/** All sessions of a test file, so that none keeps the process alive. */
export class Sessions {
  #open = new Set();

  constructor(server) {
    this.server = server;
  }

  /** A session that is not yet connected. */
  prepare(options) {
    const session = new Session(this.server(), options);
    this.#open.add(session);
    return session;
  }

  /** A connected session of this user. */
  async of(user, options = {}) {
    const session = this.prepare({ token: mint(user), ...options });
    await session.connect();
    return session;
  }

  end() {
    for (const session of this.#open) session.cut();
    this.#open.clear();
  }
}

/** STOMP by hand over ws, for frames that a well-behaved client cannot send. */
export class Raw {
  frames = new Inbox('frame');
  closes = new Inbox('close');

  static async open(server, { token, protocols = ['v12.stomp'], headers = {} } = {}) {
    const raw = new Raw();
    raw.socket = new WebSocket(server.endpoint(token && `token=${token}`), protocols, { headers });
    raw.socket.on('message', (data, binary) => raw.#received(data, binary));
    raw.socket.on('close', (code, reason) => raw.closes.push({ code, reason: reason.toString() }));
    await within(
      new Promise((resolve, reject) => {
        raw.socket.on('open', resolve);
        raw.socket.on('error', reject);
      }),
      'open',
    );
    return raw;
  }

  /** Opens, connects as STOMP, and drops the CONNECTED frame. */
  static async connect(server, user, headers = 'accept-version:1.2\nhost:tidings\n') {
    const raw = await Raw.open(server, { token: mint(user) });
    raw.send(`CONNECT\n${headers}\n\0`);
    const connected = await raw.frames.next();
    assert.equal(connected.command, 'CONNECTED');
    return raw;
  }

  beats = 0;

  #received(data, binary) {
    const text = data.toString('latin1');
    if (text === '\n') {
      this.beats += 1;
      return;
    }
    const end = text.indexOf('\n\n');
    const [command, ...lines] = text.slice(0, end).split('\n');
    const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]));
    const body = data.subarray(end + 2, data.lastIndexOf(0));
    this.frames.push({ command, headers, body, text: body.toString(), binary, size: data.length });
  }

  send(text) {
    this.socket.send(text);
  }

  close() {
    this.socket.terminate();
  }
}
