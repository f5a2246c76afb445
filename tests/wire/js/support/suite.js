// The setup of every test file: one server, the sessions opened on it, and a time limit for each test.

import { after, afterEach, before, test } from 'node:test';

import { Server } from './server.js';
import { Sessions } from './stomp.js';

/** Starts a server with `settings` before the file's tests; `it` adds a test with a time limit. */
export function suite(settings = {}) {
  const context = { server: undefined };
  context.sessions = new Sessions(() => context.server);
  before(async () => {
    context.server = await Server.start(settings);
  });
  afterEach(() => context.sessions.end());
  after(() => context.server?.stop());
  context.it = (name, body) => test(name, { timeout: 30_000 }, body);
  return context;
}
