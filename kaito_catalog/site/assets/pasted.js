// A pasted config.json → the tables that plan.js plans with. kaito_catalog's own Python modules read it, as on the
// command line; they run under Brython in a worker, and all of that is loaded when somebody pastes, not before.
"use strict";

(function (root) {
  const PATIENCE_MS = 60000;
  const MOST_KEPT = 50;
  const ELSEWHERE = "'kaito-catalog plan FOLDER' reads it on the command line";
  const here = document.currentScript.src;

  const load = (name) => new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = new URL(name, here).href;
    script.onload = done;
    script.onerror = () => {
      script.remove();
      failed(new Error(`${name} cannot be loaded`));
    };
    document.head.append(script);
  });

  // The end of the worker's program, after Brython.
  function serve(modules, start) {
    globalThis.__BRYTHON__.use_VFS = true;
    globalThis.__BRYTHON__.update_VFS({ $timestamp: 0, ...modules });
    globalThis.onmessage = ({ data }) => {
      try {
        if (!globalThis.kaitoCatalogTables) globalThis.__BRYTHON__.runPythonSource(start, "start");
        postMessage(globalThis.kaitoCatalogTables(data));
      } catch (error) {
        const words = error && (error.message || error.constructor.name);
        postMessage(JSON.stringify({ failed: String(words || error).slice(0, 200) }));
      }
    };
  }

  async function begin() {
    await Promise.all([load("brython.js"), load("plan-python.js")]);
    const { kaitoCatalogBrython: brython, kaitoCatalogPython: ours } = root;
    const modules = JSON.stringify({ ...brython.modules, ...ours.modules });
    // A worker of a page on a disk has no address from which Brython could guess where it lies; nor is anything there.
    const place = 'globalThis.__BRYTHON__ = { brython_path: "file:///" };\n';
    const program = [place, brython.program, `\n;(${serve})(${modules}, ${JSON.stringify(ours.start)});`];
    const address = URL.createObjectURL(new Blob(program, { type: "text/javascript" }));
    try {
      return new Worker(address);
    } finally {
      URL.revokeObjectURL(address);
    }
  }

  let worker = null;

  async function answer(text) {
    try {
      worker ||= await begin();
    } catch (error) {
      return { unknown: `${error.message}; ${ELSEWHERE}` };
    }
    return new Promise((done) => {
      const stop = (reason) => {
        worker.terminate();
        worker = null;
        end({ unknown: `${reason}; ${ELSEWHERE}` });
      };
      const timer = setTimeout(() => stop("reading it took longer than a minute"), PATIENCE_MS);
      const end = (value) => {
        clearTimeout(timer);
        done(value);
      };
      worker.onmessage = ({ data }) => {
        const value = JSON.parse(data);
        if (value.failed) return stop(`this page cannot read it (${value.failed})`);
        if (known.size >= MOST_KEPT) known.clear();
        known.set(text, value);
        return end(value);
      };
      worker.onerror = (event) => {
        event.preventDefault();
        stop(`this browser cannot read it (${event.message})`);
      };
      worker.postMessage(text);
    });
  }

  const known = new Map();
  let isBusy = false;
  let next = null;

  async function proceed() {
    if (isBusy || !next) return;
    isBusy = true;
    const { text, done } = next;
    next = null;
    done(await answer(text));
    isBusy = false;
    proceed();
  }

  // Python reads NaN and Infinity, which are no JSON, and Brython reads neither them nor 1e+3 or 1E3. A number out of
  // range and a text that is not a number are refused where a plan needs a number, just as they are.
  const NUMBERS = { NaN: '"NaN"', "-NaN": '"NaN"', Infinity: "1e999", "-Infinity": "-1e999" };
  const ODD = /"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b|(?<=\d)[eE]\+?(?=[-\d])/g;
  const asJson = (text) => text.replace(ODD, (found) => (/^[eE]/.test(found) ? "e" : NUMBERS[found] ?? found));

  const question = (data, asked) => JSON.stringify({
    ...asked, config: asJson(asked.config), quantization: asJson(asked.quantization), vllmVersion: data.vllmVersion,
    deviceClasses: data.deviceClasses.map((kind) => {
      const gpu = data.gpus.find((g) => g.name === kind.gpu);
      return { name: gpu.name, memoryBytes: gpu.memoryBytes, computeCapability: kind.computeCapability };
    }),
  });

  // asked: config, quantization (texts), weightsBytes, gpuCount. A promise of what site/tables.py returns; of null
  // where something else was asked before its turn came.
  function read(data, asked) {
    const text = question(data, asked);
    return new Promise((done) => {
      if (next) next.done(null);
      next = { text, done };
      proceed();
    });
  }

  // What was read already, or undefined.
  const recall = (data, asked) => known.get(question(data, asked));

  root.kaitoCatalogPasted = { read, recall, asJson };
})(globalThis);
