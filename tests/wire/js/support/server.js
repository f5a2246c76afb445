// A tidings server of its own for one test file: a free port, an empty data directory, a log that is kept for the
// search after all tests. Nothing here knows more of the server than its command line and its REST routes.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, mkdirSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const binary = process.env.TIDINGS_BIN ?? path.join(root, 'target/release/tidings');
// Where logs and the list of secrets stay until the log search.
export const out = process.env.WIRE_OUT ?? path.join(root, 'target/wire');

export const SECRET = 'wire-tests-sign-their-tokens-with-this-secret';
export const FIXED_CODE = '000000';

// Limits raised so that they do not disturb tests of other things.
const ROOMY = {
  'limits.messages_per_minute': 1_000_000,
  'limits.messages_burst': 100_000,
  'limits.otp_per_phone_hour': 10_000,
  'limits.auth_per_address_minute': 100_000,
};

/** Records a secret that no log may hold. */
export function remember(secret) {
  mkdirSync(out, { recursive: true });
  appendFileSync(path.join(out, 'secrets'), `${secret}\n`);
  return secret;
}

function base64url(value) {
  return Buffer.from(value).toString('base64url');
}

/** An access token as another issuer with the same secret would sign it. `ttl` in seconds; `claims` go on top. */
export function mint(user, { ttl = 3_600, secret = SECRET, ...claims } = {}) {
  const now = Math.floor(Date.now() / 1_000);
  const head = base64url(JSON.stringify({ alg: 'HS256', typ: 'JWT' }));
  const body = base64url(JSON.stringify({ sub: String(user), iat: now, exp: now + ttl, jti: randomBytes(8).toString('hex'), ...claims }));
  const signature = createHmac('sha256', secret).update(`${head}.${body}`).digest('base64url');
  return remember(`${head}.${body}.${signature}`);
}

export const admin = () => mint(9_000_000_001, { roles: ['admin'] });

let lastUser = 1_000_000 + Math.floor(Math.random() * 1_000_000) * 1_000;

/** User ids that no other test uses. */
export function users(count) {
  return Array.from({ length: count }, () => ++lastUser);
}

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

export class Server {
  /** Starts a server and waits until it is ready. `set` holds configuration keys. */
  static async start(set = {}) {
    const server = new Server();
    mkdirSync(out, { recursive: true });
    server.directory = mkdtempSync(path.join(out, 'data-'));
    server.port = await freePort();
    server.settings = {
      listen: `127.0.0.1:${server.port}`,
      data_dir: server.directory,
      shards: 2,
      'auth.secret': SECRET,
      // Secrets must not be logged at this level either.
      'log.level': 'debug',
      ...ROOMY,
      ...set,
    };
    remember(SECRET);
    await server.launch();
    return server;
  }

  get base() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The address of the WebSocket endpoint, with a query if given. */
  endpoint(query = '', route = '/ws') {
    return `ws://127.0.0.1:${this.port}${route}${query && `?${query}`}`;
  }

  async launch() {
    const settings = Object.entries(this.settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
    const name = path.join(out, `server-${this.port}-${Date.now()}`);
    const [stdout, stderr] = [openSync(`${name}.out`, 'a'), openSync(`${name}.log`, 'a')];
    this.log = `${name}.log`;
    this.process = spawn(binary, ['serve', ...settings], { stdio: ['ignore', stdout, stderr] });
    closeSync(stdout);
    closeSync(stderr);
    // For the clean-up after interrupted tests.
    if (this.process.pid) writeFileSync(path.join(out, `pid-${this.process.pid}`), '');
    let fault;
    this.process.once('error', (error) => (fault = error));
    for (let waited = 0; ; waited += 20) {
      if (fault) throw fault;
      if (this.process.exitCode !== null || waited > 15_000) {
        this.process.kill('SIGKILL');
        throw new Error(`the server did not start:\n${readFileSync(this.log, 'utf8').slice(-2_000)}`);
      }
      const ready = await fetch(`${this.base}/readyz`).catch(() => undefined);
      await ready?.arrayBuffer();
      if (ready?.status === 200) return;
      await delay(20);
    }
  }

  /** Ends the process with a signal and waits for its end; returns how it ended. */
  async end(signal = 'SIGTERM') {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const ended = once(this.process, 'exit');
      this.process.kill(signal);
      await ended;
    }
    rmSync(path.join(out, `pid-${this.process.pid}`), { force: true });
    return { code: this.process.exitCode, signal: this.process.signalCode };
  }

  /** For `after`: no process and no data stays behind. */
  async stop() {
    await this.end('SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** A REST call: `{status, headers, body}`, the body parsed when it is JSON. */
  async rest(token, method, route, body, headers = {}) {
    const response = await fetch(this.base + route, {
      method,
      headers: {
        ...(token && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(10_000),
    });
    const text = await response.text();
    const json = response.headers.get('content-type')?.startsWith('application/json');
    return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text };
  }

  /** Like `rest`, for calls that must succeed. */
  async expect(status, ...call) {
    const response = await this.rest(...call);
    assert.equal(response.status, status, `${call[1]} ${call[2]}: ${JSON.stringify(response.body)}`);
    return response.body;
  }

  /** A conversation of these users, created by the first. */
  async conversation(...participants) {
    const kind = participants.length === 2 ? 'direct' : 'group';
    const body = await this.expect(201, mint(participants[0]), 'POST', '/conversations', { kind, participants: participants.slice(1) });
    return body.id;
  }

  /** The stored message of a send over REST. */
  post(user, conversation, content, more = {}) {
    return this.expect(201, mint(user), 'POST', `/conversations/${conversation}/messages`, { content, ...more });
  }

  /** The conversation's messages, oldest first. */
  async history(user, conversation) {
    const page = await this.expect(200, mint(user), 'GET', `/conversations/${conversation}/messages?limit=100`);
    return page.messages.reverse();
  }

  /** A login by one-time code: the response of `POST /auth/login`. */
  async login(phone) {
    await this.expect(202, undefined, 'POST', '/auth/otp', { phone });
    const login = await this.expect(200, undefined, 'POST', '/auth/login', { phone, otp: FIXED_CODE });
    remember(login.accessToken);
    remember(login.refreshToken);
    return login;
  }
}
